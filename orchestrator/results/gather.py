"""From the store to the results: what every finished step wrote, in its type, joined into what is reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from safetensors.numpy import load_file

from execution.runner import Outcome
from execution.settings import unkeyed
from execution.step import Step
from execution.store import Store
from methods.data.view import view
from orchestrator.config.study import Study
from orchestrator.evaluation.problems import FILE as PROBLEMS
from orchestrator.evaluation.verdicts import evaluation, shares
from orchestrator.planning.kept_pairs import KeptPairs as Kept
from orchestrator.planning.kept_pairs import kept_pairs
from orchestrator.planning.training_runs import sweep_points, training_runs
from orchestrator.results.attribution import attribution
from orchestrator.results.best_rate import best_rates
from orchestrator.results.matched import matched
from orchestrator.results.read import fitting, read_part
from orchestrator.results.reference import directions, listed, with_floors
from orchestrator.rollouts.dataset import training_rollouts
from orchestrator.steps.base import NOTE
from orchestrator.steps.geometry import LAYERS
from orchestrator.steps.rollouts import STATISTICS
from results import VERSION, Results
from results.document import Measured
from results.evaluation import Task
from results.function import Losses
from results.headline import HeadlineRow, reference_among
from results.part import MayBeAbsent, present
from results.rollouts import Contamination, FrozenTable, GoldAsText, GoldLeftOut, Rollouts, View
from results.study import Base, Failure, KeptPairs, StudyFacts, Unfinished
from results.trainings import AnyTraining, Course, Curve, Sweep, SweepPoint, Trained, Training, Untrained
from results.weights import Geometry

QUESTION = "Are these methods different mechanisms, or one update with another step size?"


def gather(study: Study, outcome: Outcome, store: Store, early: Mapping[str, Path] | None = None) -> Results:
    """The results of all finished steps. Parts that did not run are missing, and ``failures`` says why.

    ``early`` are folders of steps that are not in the store, by title. ``UserError`` where a finished step's file does
    not hold what this version of the step writes.
    """
    done, early = {step.title: step for step in outcome.steps}, early or {}
    folders = {title: early.get(title) or store.folder(step) for title, step in done.items()}
    reference = reference_among(list(study.methods))
    trainings = _trainings(study, folders, outcome)
    kept = kept_pairs(study)
    evaluated = evaluation(done, folders, kept.overall)
    tasks = (evaluated and evaluated.tasks) or []
    measured = _measured(done, folders)
    geometry = with_floors(measured.geometry, trainings, reference) if measured.geometry else None
    parts = dict(measured) | {
        "study": _study(study),
        "base": _base(study, folders, geometry),
        "rollouts": _rollouts(study, folders),
        "curves": [_curve(c.name, folders[t]) for c in training_runs(study) if (t := f"train/{c.name}") in folders],
        "evaluation": evaluated,
        "geometry": geometry,
        "failures": _failures(outcome),
        "unfinished": _unfinished(outcome, early),
        "headline": _headline(geometry, trainings, reference, tasks) if geometry else None,
        "directions": directions(geometry, trainings, reference, study.analysis.seed) if geometry else None,
        "attribution": attribution(geometry, measured.activations, trainings, study.analysis.seed, layers(folders))
        if geometry
        else None,
        "kept_pairs": _kept(kept),
        "matched": matched(
            trainings,
            reference,
            geometry,
            measured.activations,
            measured.losses or [],
            shares(done, folders),
            similarity=measured.similarity,
            connectivity=measured.connectivity,
            scaled=measured.scaled or (),
            scaled_cka=measured.scaled_cka or (),
            best=best_rates(measured.search),
            wanted=study.matches,
        )
        or None,
        "sweep": _sweep(study, reference, trainings, geometry, measured.losses or [], tasks),
    }
    return Results(version=VERSION, trainings=trainings, **present(**parts))


def _study(study: Study) -> StudyFacts:
    note = present(note=study.note or None)
    return StudyFacts(name=study.name, title=study.title, question=QUESTION, settings=settings_of(study), **note)


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

    settings = study.model_dump(mode="json", exclude={"placement", "data", "note", "max_trainings"})
    for name in unkeyed(study.training):
        del settings["training"][name]
    if not settings["matches"]:
        del settings["matches"]  # none stated: all kinds
    walk(settings, "")
    # A local path is this machine's business: its file's name is enough, and its content is in the keys.
    places = (".path", ".source", "rollouts.name")
    return {k: Path(v).name if k.endswith(places) and str(v).startswith("/") else v for k, v in flat.items()}


class _Note(Base):
    """As a base step writes it: with where the model lies, which is this machine's business."""

    folder: MayBeAbsent[str] = None


def _base(study: Study, folders: Mapping[str, Path], geometry: Geometry | None) -> Base:
    folder = next((f for t, f in folders.items() if t.startswith("base/")), None)
    if folder is None:
        return Base.model_validate({"name": study.base.name, "kind": study.base.kind})
    note = dict(read_part(_Note, folder / NOTE))
    del note["folder"]
    return Base(**present(**note | {"modules": geometry.adapters[0].modules if geometry else None}))


class _Drawn(BaseModel):
    """What a problems step tells beside the problems themselves."""

    contamination: Contamination
    as_text: list[GoldAsText] = []
    left_out: list[GoldLeftOut] = []


def _rollouts(study: Study, folders: Mapping[str, Path]) -> Rollouts | None:
    folder = next((f for t, f in folders.items() if t.startswith("rollouts/")), None)
    if folder is None:
        return None
    table = read_part(FrozenTable, folder / STATISTICS)
    rollouts = training_rollouts(folder)
    views = []
    for method in study.methods:
        try:
            spec, settings = study.rollouts.table, study.settings_of(method)
            seen = spec.pair_rule, spec.pairs, settings, study.training.examples
            units = view(study.objective(method), rollouts, *seen)
        except ValueError:  # an empty view: its training says so itself
            units = []
        rows = {row for unit in units for row in unit}
        problems = {rollouts[row].group for row in rows}
        views.append(View(method=method, units=len(units), rows=len(rows), problems=len(problems)))
    more: dict[str, Any] = {"views": views}
    if table.api is not None and (dollars := study.rollouts.api_cost(dict(table.api))) is not None:
        more["api"] = table.api.model_copy(update={"cost": dollars})
    if "problems/evaluation" in folders:
        drawn = read_part(_Drawn, folders["problems/evaluation"] / PROBLEMS)
        more |= {"contamination": drawn.contamination, "golds_as_text": drawn.as_text or None}
        more["golds_left_out"] = [*(table.golds_left_out or []), *drawn.left_out] or None
    return Rollouts(**present(**dict(table) | more))


def _trainings(study: Study, folders: Mapping[str, Path], outcome: Outcome) -> list[AnyTraining]:
    rows: list[AnyTraining] = []
    for cell in training_runs(study):
        asked: dict[str, Any] = {
            "name": cell.name,
            "method": cell.method,
            "objective": cell.objective,
            "role": cell.role,
            "of": cell.of,
            "learning_rate": cell.learning_rate,
            "init_seed": cell.init_seed,
            "order_seed": cell.order_seed,
            "start": cell.adapter.start,
            **present(varied=dict(cell.varied) or None),
        }
        title = f"train/{cell.name}"
        if title in folders:
            course = read_part(Course, folders[title] / "training.json")
            rows.append(Trained(**dict(course) | asked, status="done", error=None))
        elif title in outcome.failed:
            rows.append(Untrained(**asked, status="failed", error=outcome.failed[title]))
        else:
            rows.append(Untrained(**asked, status="not run", error=outcome.blocked.get(title)))
    return rows


def _curve(name: str, folder: Path) -> Curve:
    path = folder / "log.jsonl"
    with fitting(path):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        own = [field for field in Curve.model_fields if field != "name"]
        later = {field for field in own if not Curve.model_fields[field].is_required()}  # absent from older logs
        columns = {field: [line[field] for line in lines] for field in own if field not in later or field in lines[0]}
        return Curve(name=name, **columns)


def _measured(done: Mapping[str, Step], folders: Mapping[str, Path]) -> Measured:
    """What the finished steps of the measurements give; of steps a model each, their rows in the plan's order."""
    measured: dict[str, Any] = {}
    for title, step in done.items():
        if step.kind.read is not None:
            for name, part in present(**dict(step.kind.read(folders[title]))).items():
                measured[name] = measured[name] + part if name in measured else part
    return Measured(**measured)


def _headline(
    geometry: Geometry, trainings: Sequence[Training], reference: str, tasks: Sequence[Task]
) -> list[HeadlineRow]:
    """Every method beside the reference, and every point of the sweep, with its numbers."""
    norms = {adapter.name: adapter.norm for adapter in geometry.adapters}
    rates = {training.name: training.learning_rate for training in trainings}
    rows = []
    for row in listed(list(norms), trainings, reference):
        pair = geometry.pair(reference, row.name)
        rows.append(
            HeadlineRow(
                **dict(row),
                learning_rate=rates[row.name],
                norm=norms[row.name],
                cosine=pair.cosine if pair else None,
                angle_min_median_deg=pair.angle_min_median_deg if pair else None,
                u1=pair.u1 if pair else None,
                v1=pair.v1 if pair else None,
                accuracy=_accuracies(tasks, row.name),
            )
        )
    return rows


def _accuracies(tasks: Sequence[Task], model: str) -> dict[str, float]:
    return {task.task: score.accuracy for task in tasks if (score := task.score(model)) is not None}


def _sweep(
    study: Study,
    reference: str,
    trainings: Sequence[Training],
    geometry: Geometry | None,
    losses: Sequence[Losses],
    tasks: Sequence[Task],
) -> Sweep | None:
    """The swept method along its learning rates: norm, direction, drift, losses, accuracy; None without a sweep."""
    if study.sweep is None:
        return None
    norms = {adapter.name: adapter.norm for adapter in geometry.adapters} if geometry else {}
    moved = {training.name: training.a_moved_rel for training in trainings if isinstance(training, Trained)}
    nll = {row.name: row.nll_right for row in losses}
    points = []
    for cell in sweep_points(study):
        pair = geometry.pair(reference, cell.name) if geometry else None
        points.append(
            SweepPoint(
                name=cell.name,
                learning_rate=cell.learning_rate,
                norm=norms.get(cell.name),
                cosine_to_sft=pair.cosine if pair else None,
                a_moved_rel=moved.get(cell.name),
                nll_right=nll.get(cell.name),
                accuracy=_accuracies(tasks, cell.name),
            )
        )
    return Sweep(method=study.sweep.method, matched_learning_rate=study.learning_rate(reference), points=points)


def _kept(kept: Kept) -> KeptPairs | None:
    if kept.beside is None:
        return None
    overall = None if kept.overall is None else len(kept.overall)
    return KeptPairs(trainings=kept.trainings, beside=kept.beside, **present(overall=overall))


def layers(folders: Mapping[str, Path]) -> np.ndarray | None:
    """The layers' Grams, L x M x M, where the geometry does not list every pair by layer."""
    path = next((folder / LAYERS for title, folder in folders.items() if title.startswith("geometry/")), None)
    if path is None or not path.exists():
        return None
    with fitting(path):
        return load_file(path)["grams"]


def _unfinished(outcome: Outcome, early: Mapping[str, Path]) -> Unfinished | None:
    """What a report midway lacks: how many of all steps are done, the titles of the rest; None where all are.

    ``early`` were measured aside, of the trainings that are there: they are not done.
    """
    done = [step.title for step in outcome.steps if step.title not in early]
    failed, waiting = sorted(outcome.failed), sorted([*outcome.blocked, *early])
    if not failed and not waiting:
        return None
    steps = len(done) + len(failed) + len(waiting)
    return Unfinished(steps=steps, done=len(done), failed=failed, waiting=waiting, early=sorted(early))


def _failures(outcome: Outcome) -> list[Failure]:
    """Each failed step with its error and those that did not run because of it."""
    needs = {t: set(why.removeprefix("needs ").split(", ")) for t, why in outcome.blocked.items()}

    def dependants(title: str) -> set[str]:
        direct = {t for t, lost in needs.items() if title in lost}
        return direct.union(*(dependants(t) for t in direct))

    return [
        Failure(step=title, error=error, dependants=sorted(dependants(title)))
        for title, error in sorted(outcome.failed.items())
    ]
