"""From the store to the results: what every finished step wrote, joined into the one dictionary that is reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.weights.directions import directions
from analysis.weights.replicas import noise, repeats, runs
from execution.runner import Outcome
from execution.settings import unkeyed
from execution.step import Step
from execution.store import Store
from methods.data.view import view
from orchestrator.config.study import Study
from orchestrator.evaluation.problems import FILE as PROBLEMS
from orchestrator.evaluation.verdicts import evaluation
from orchestrator.planning.training_runs import TrainingRun, sweep_points, training_runs
from orchestrator.rollouts.dataset import training_rollouts
from orchestrator.steps.base import NOTE
from orchestrator.steps.rollouts import STATISTICS
from results import VERSION, Results

QUESTION = "Are these methods different mechanisms, or one update with another step size?"


def gather(study: Study, outcome: Outcome, store: Store, early: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """The results of all finished steps. Parts that did not run are missing, and ``failures`` says why.

    ``early`` are folders of steps that are not in the store, by title.
    """
    done, early = {step.title: step for step in outcome.steps}, early or {}
    folders = {title: early.get(title) or store.folder(step) for title, step in done.items()}
    measured = _measurements(done, folders)
    trainings = _trainings(study, folders, outcome)
    results = {
        "version": VERSION,
        "study": {"name": study.name, "title": study.title, "question": QUESTION, "settings": settings_of(study)}
        | ({"note": study.note} if study.note else {}),
        "base": _base(study, folders, measured),
        "rollouts": _rollouts(study, done, folders),
        "trainings": trainings,
        "curves": [_curve(c.name, folders[t]) for c in training_runs(study) if (t := f"train/{c.name}") in folders],
        "evaluation": evaluation(done, folders),
        **measured,
        "failures": _failures(outcome),
        "unfinished": _unfinished(outcome, early),
    }
    if "geometry" in results:
        results["geometry"]["floors"] = floors(trainings, results["geometry"], reference_of(study))
        results["headline"] = _headline(study, results)
        results["directions"] = spread(trainings, results["geometry"], reference_of(study), study.analysis.seed)
    if study.sweep:
        results["sweep"] = _sweep(study, results)
    found = {name: part for name, part in results.items() if part not in (None, {})}
    Results.model_validate(found)  # what does not fit the published schema is a defect of this tool
    return found


def settings_of(study: Study) -> dict[str, Any]:
    """Every setting of the study as one flat mapping; placement, the data folder and saving decide no result."""
    flat: dict[str, Any] = {}

    def walk(value: Any, where: str) -> None:
        if isinstance(value, Mapping) and value:
            for name, item in value.items():
                walk(item, f"{where}.{name}" if where else name)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for i, item in enumerate(value):
                walk(item, f"{where}.{i}")
        else:
            flat[where] = value

    told = study.model_dump(mode="json", exclude={"placement", "data", "note"})
    for name in unkeyed(study.training):
        del told["training"][name]
    walk(told, "")
    # A local path is this machine's business: its file's name is enough, and its content is in the keys.
    places = (".path", ".source", "rollouts.name")
    return {k: Path(v).name if k.endswith(places) and str(v).startswith("/") else v for k, v in flat.items()}


def _base(study: Study, folders: Mapping[str, Path], measured: Mapping[str, Any]) -> dict[str, Any]:
    folder = next((f for t, f in folders.items() if t.startswith("base/")), None)
    if folder is None:
        return {"name": study.base.name, "kind": study.base.kind}
    note = json.loads((folder / NOTE).read_text())
    adapters = measured.get("geometry", {}).get("adapters", [])
    note.pop("folder", None)
    return note | ({"modules": adapters[0]["modules"]} if adapters else {})


def _rollouts(study: Study, done: Mapping[str, Step], folders: Mapping[str, Path]) -> dict[str, Any] | None:
    folder = next((f for t, f in folders.items() if t.startswith("rollouts/")), None)
    if folder is None:
        return None
    stats = json.loads((folder / STATISTICS).read_text())
    rollouts = training_rollouts(folder)
    views = []
    for method in study.methods:
        try:
            table, settings = study.rollouts.table, study.settings_of(method)
            units = view(study.objective(method), rollouts, table.pair_rule, table.pairs, settings)
        except ValueError:  # an empty view: its training says so itself
            units = []
        rows = {row for unit in units for row in unit}
        problems = {rollouts[row].group for row in rows}
        views.append({"method": method, "units": len(units), "rows": len(rows), "problems": len(problems)})
    stats["views"] = views
    if "api" in stats and (dollars := study.rollouts.api_cost(stats["api"])) is not None:
        stats["api"]["cost"] = dollars
    if "problems/evaluation" in folders:
        problems_file = json.loads((folders["problems/evaluation"] / PROBLEMS).read_text())
        stats["contamination"] = problems_file["contamination"]
        if problems_file.get("as_text"):
            stats["golds_as_text"] = problems_file["as_text"]
    return stats


def _trainings(study: Study, folders: Mapping[str, Path], outcome: Outcome) -> list[dict[str, Any]]:
    rows = []
    for cell in training_runs(study):
        row: dict[str, Any] = {
            "name": cell.name,
            "method": cell.method,
            "objective": cell.objective,
            "role": cell.role,
            "of": None if cell.role == "method" else cell.method,
            "learning_rate": cell.learning_rate,
            "init_seed": cell.init_seed,
            "order_seed": cell.order_seed,
        }
        folder = folders.get(f"train/{cell.name}")
        if folder is not None:
            summary = json.loads((folder / "training.json").read_text())
            rows.append(summary | row | {"status": "done", "error": None})
        else:
            title = f"train/{cell.name}"
            failed = outcome.failed.get(title)
            status = "not run" if failed is None else "failed"
            rows.append(row | {"status": status, "error": failed or outcome.blocked.get(title)})
    return rows


def _curve(name: str, folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    fields = ("step", "loss", "grad_norm", "learning_rate", "a_moved", "a_moved_rel", "b_norm")
    return {"name": name} | {field: [line[field] for line in lines] for field in fields}


def _measurements(done: Mapping[str, Step], folders: Mapping[str, Path]) -> dict[str, Any]:
    """What the finished steps of the measurements give, by name."""
    found: dict[str, Any] = {}
    for title, step in done.items():
        if step.kind.read is not None:
            found |= step.kind.read(folders[title])
    return found


def _pair(geometry: Mapping[str, Any], a: str, b: str) -> dict[str, Any] | None:
    """The entry of a pair, whichever way round it stands."""
    return next((p for p in geometry["pairs"] if {p["a"], p["b"]} == {a, b}), None)


def floors(trainings: Sequence[Mapping[str, Any]], geometry: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """What another order, another initial A, another learning rate alone give: every pair of runs that differ so.

    Lists of pairs, the reference's own first, for each kind that there is; last, what rounding gives.
    """
    known = runs(trainings, [entry["name"] for entry in geometry["adapters"]])
    methods = {run.name: run.method for run in known}
    found: dict[str, Any] = {}
    for kind, pairs in repeats(known).items():
        ordered = sorted(pairs, key=lambda pair: methods[pair[0]] != methods.get(reference, reference))
        entries = [entry for a, b in ordered if (entry := _pair(geometry, a, b)) is not None]
        found |= {kind: entries} if entries else {}
    return found | {"itself": geometry["itself"]}


def spread(
    trainings: Sequence[Mapping[str, Any]],
    geometry: Mapping[str, Any],
    reference: str,
    seed: int = 0,
    alike: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """What the Gram tells (``weights.directions``) of the updates that have a direction: neither zero nor noise.

    None where the reference has none.
    """
    marked = noise(trainings)
    kept = [i for i, row in enumerate(geometry["adapters"]) if row["norm"] != 0 and row["name"] not in marked]
    names = [geometry["adapters"][i]["name"] for i in kept]
    if reference not in names:
        return None
    gram = [[geometry["gram"][i][j] for j in kept] for i in kept]
    return directions(runs(trainings, names), gram, reference, alike, seed)


def _headline(study: Study, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every training beside SFT (or the first method): as it is, and the sweep's point at the others' rate."""
    reference = reference_of(study)
    norms = {entry["name"]: entry["norm"] for entry in results["geometry"]["adapters"]}
    rows = []
    for cell in training_runs(study):
        if cell.name not in norms or cell.role not in ("method", "sweep"):
            continue
        entry = _pair(results["geometry"], reference, cell.name) or {}
        rows.append(
            {
                "name": cell.name,
                "compared_to": reference,
                "matched": _matched(study, cell),
                "learning_rate": cell.learning_rate,
                "norm": norms[cell.name],
                **{k: entry.get(k) for k in ("cosine", "angle_min_median_deg", "u1", "v1")},
                "accuracy": _accuracies(results, cell.name),
            }
        )
    return rows


def _matched(study: Study, cell: TrainingRun) -> str:
    if cell.role == "method":
        return "as published"
    return "learning rate" if cell.learning_rate == study.learning_rate(reference_of(study)) else "sweep"


def reference_of(study: Study) -> str:
    """The method that the others are compared to."""
    return "sft" if "sft" in study.methods else next(iter(study.methods))


def _accuracies(results: Mapping[str, Any], model: str) -> dict[str, float]:
    tasks = results["evaluation"].get("tasks", [])
    return {t["task"]: m["accuracy"] for t in tasks for m in t["models"] if m["name"] == model}


def _sweep(study: Study, results: Mapping[str, Any]) -> dict[str, Any]:
    """The swept method along its learning rates: norm, direction, drift, losses, accuracy."""
    assert study.sweep is not None
    geometry = results.get("geometry")
    norms = {entry["name"]: entry["norm"] for entry in geometry["adapters"]} if geometry else {}
    trained = {row["name"]: row for row in results["trainings"]}
    losses = {row["name"]: row for row in results.get("losses", [])}
    points = []
    for cell in sweep_points(study):
        entry = _pair(geometry, reference_of(study), cell.name) if geometry else None
        points.append(
            {
                "name": cell.name,
                "learning_rate": cell.learning_rate,
                "norm": norms.get(cell.name),
                "cosine_to_sft": entry["cosine"] if entry else None,
                "a_moved_rel": trained[cell.name].get("a_moved_rel"),
                "nll_right": losses.get(cell.name, {}).get("nll_right"),
                "accuracy": _accuracies(results, cell.name),
            }
        )
    return {
        "method": study.sweep.method,
        "matched_learning_rate": study.learning_rate(reference_of(study)),
        "points": points,
    }


def _unfinished(outcome: Outcome, early: Mapping[str, Path]) -> dict[str, Any] | None:
    """What a report midway lacks: how many of all steps are done, the titles of the rest; None where all are.

    ``early`` were measured aside, of the trainings that are there: they are not done.
    """
    done = [step.title for step in outcome.steps if step.title not in early]
    failed, waiting = sorted(outcome.failed), [*outcome.blocked, *early]
    if not failed and not waiting:
        return None
    steps = len(done) + len(failed) + len(waiting)
    return {"steps": steps, "done": len(done), "failed": failed, "waiting": sorted(waiting), "early": sorted(early)}


def _failures(outcome: Outcome) -> list[dict[str, Any]]:
    """Each failed step with its error and those that did not run because of it."""
    needs = {t: set(why.removeprefix("needs ").split(", ")) for t, why in outcome.blocked.items()}

    def dependants(title: str) -> set[str]:
        direct = {t for t, lost in needs.items() if title in lost}
        return direct.union(*(dependants(t) for t in direct))

    return [
        {"step": title, "error": error, "dependants": sorted(dependants(title))}
        for title, error in sorted(outcome.failed.items())
    ]
