"""``compare``: the geometry laboratory on anyone's adapters, without a study: PEFT LoRA folders in, a report out."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.context import Inputs, Share
from orchestrator.errors import DONE, UserError
from orchestrator.store import RECORD, write_json

CHECKPOINT = re.compile(r"(?:checkpoint|step)-(\d{1,9})")
KEY = re.compile(r"-[0-9a-f]{10}$")  # of a step's folder in a store
ANALYSIS = {"top": 10, "threads": 1, "seed": 0, "chance_draws": 8}
PARTS = ("report.html", "results.json", "provenance.json", "csv", "figures")
PROMPT = {"max_prompt_tokens": 2048, "max_answer_tokens": 2048}
INSTRUCTION = "{problem}"


@dataclass(frozen=True)
class Given:
    """One adapter as it was named: its folder, the name it goes by, and what a run of this tool noted beside it."""

    path: Path
    name: str
    training: Mapping[str, Any]
    checkpoints: Mapping[int, Path]


def compare(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Measure, render, and say where the page is. What is wrong with an adapter is a ``UserError`` of one line."""
    begun = time.time()
    out = _out(options.out)
    try:
        given = resolve(options.adapters)
        results, notes = _measure(given, options, say)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from None
    for note in notes:
        say(note)
    _write(results, _provenance(given, options, begun), out)
    print(f"report: {out / 'report.html'}")
    return DONE


def resolve(words: Sequence[str]) -> list[Given]:
    """Each ``[NAME=]FOLDER`` with a name of its own: the shortest end of its path that no other one has.

    Where all folders are checkpoints of two trainings or more, the trainings are compared, each at its last one, and
    along the steps they share.
    """
    named = [_split(word) for word in words]
    unnamed = [path for name, path in named if name is None]
    if len(unnamed) == len(named) and (groups := _series(unnamed)):
        names = distinct_names([folder for folder, _ in groups])
        return [_given(saved[max(saved)], name, saved) for name, (_, saved) in zip(names, groups, strict=True)]
    short = iter(distinct_names(unnamed))
    found = [_given(path, name or next(short), {}) for name, path in named]
    seen: set[str] = set()
    for one in found:
        if one.name in seen:
            raise UserError(f"two adapters are called {one.name!r}: write them as NAME=FOLDER, each name once")
        seen.add(one.name)
    return found


def _split(word: str) -> tuple[str | None, Path]:
    name, equals, folder = word.partition("=")
    if not equals or os.sep in name or Path(word).is_dir():
        name, folder = "", word
    if not folder or "\0" in folder:
        raise UserError(f"{word!r} names no folder: write [NAME=]FOLDER")
    if equals and not name.strip() and not Path(word).is_dir() and os.sep not in word.partition("=")[0]:
        raise UserError(f"{word!r} has no name before the =: write [NAME=]FOLDER")
    if not name.isprintable():
        raise UserError(f"the name {name!r} holds control characters: choose another")
    return name.strip() or None, Path(folder)


def _series(paths: Sequence[Path]) -> list[tuple[Path, dict[int, Path]]]:
    """Checkpoints by the folder they lie in; empty where some path is none, or they tell nothing of a course."""
    groups: dict[Path, dict[int, Path]] = {}
    for path in paths:
        found = CHECKPOINT.fullmatch(path.resolve().name)
        if not found:
            return []
        groups.setdefault(path.resolve().parent, {})[int(found[1])] = path
    return list(groups.items()) if len(groups) > 1 and len(paths) > len(groups) else []


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path that no other one has, without what all of them end in.

    A store's folders, ``sft-3f9a1c2e00/adapter``, go by their step's name where that is enough. ``UserError`` for one
    and the same folder twice.
    """
    parts = [path.resolve().parts for path in paths]
    twice = next((path for i, path in enumerate(paths) if parts[i] in parts[:i]), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice: an adapter against itself is in every report")
    while len(parts) > 1 and len({p[-1] for p in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [p[:-1] for p in parts]
    if len(parts) == 1:
        parts = [p[:-1] if p[-1] == "adapter" else p for p in parts]
    names = [_shortest(p, parts) for p in parts]
    bare = [KEY.sub("", name) for name in names]
    return bare if len(set(bare)) == len(bare) else names


def _shortest(own: tuple[str, ...], parts: Sequence[tuple[str, ...]]) -> str:
    for length in range(1, len(own) + 1):
        if sum(other[-length:] == own[-length:] for other in parts) == 1:
            return "/".join(own[-length:])
    return "/".join(own)


def _given(path: Path, name: str, checkpoints: Mapping[int, Path]) -> Given:
    """With the settings that a training of this tool noted: in the store's record of the step, beside the adapter."""
    for folder in (path.resolve().parent, path.resolve().parent.parent):
        try:
            payload = json.loads((folder / RECORD).read_text(encoding="utf-8"))["payload"]
            config = payload["config"] if payload["kind"] == "train" else {}
            return Given(path, name, config if isinstance(config, dict) else {}, checkpoints)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return Given(path, name, {}, checkpoints)


def _measure(
    given: Sequence[Given], options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """The results with the keys of a study's, and what there is to be said of the comparison."""
    from analysis.directions import directions
    from analysis.lora import AdapterFile
    from orchestrator.steps import geometry

    if len(given) < 2:
        raise UserError("one adapter has nothing to be compared with: name two or more")
    inputs: dict[str, Path] = {f"adapter:{i}": one.path for i, one in enumerate(given)}
    places = {one.name: geometry.Place(f"adapter:{i}", ".") for i, one in enumerate(given)}
    files = {one.name: AdapterFile(one.path) for one in given}
    modules = geometry.shared(list(places.values()), inputs)
    notes = _notes(files, modules)
    subjects = []
    for i, one in enumerate(given):
        saved = {}
        for step, path in one.checkpoints.items():
            inputs[f"checkpoint:{i}:{step}"] = path
            saved[step] = geometry.Place(f"checkpoint:{i}:{step}", ".")
        subjects.append(geometry.Subject(one.name, places[one.name], _start(one, options.start, inputs), saved))
    config = ANALYSIS | {"top": options.top}
    share = threads(inputs)
    results: dict[str, Any] = {
        "comparison": {
            "adapters": [{"name": name, "base": f.base, "modules": len(f.modules)} for name, f in files.items()],
            "shared_modules": len(modules),
            "notes": notes,
        },
        "geometry": geometry.survey(subjects, inputs, config, share, say),
        "trainings": trainings(given),
    }
    results["geometry"]["floors"] = floors(results["trainings"], results["geometry"])
    reference = "sft" if "sft" in files else given[0].name
    told = {row["name"]: row for row in results["trainings"]}
    results["directions"] = directions(
        list(files),
        results["geometry"]["gram"],
        reference,
        {name: row["method"] for name, row in told.items()},
        {name: row["role"] for name, row in told.items()},
    )
    if options.base is not None:
        from orchestrator.steps import activations, spectra

        with TemporaryDirectory(prefix="orchestrator-compare-") as folder:
            inputs["base"] = Path(folder)
            note = base_note(options.base)
            write_json(Path(folder) / "base.json", note)
            settings = {"top": options.top, "threshold": options.intruder_below, "threads": 1}
            results["spectra"] = spectra.survey(places, inputs, settings, share, say)
            if options.rollouts is not None:
                rows = _rows(options, inputs["base"])
                results["activations"] = activations.survey(places, rows, inputs, cores(), share, 1, say)
    elif options.rollouts is not None:
        raise UserError("--rollouts needs --base: the updates are weighed with the base's own activations")
    return results, notes


def _notes(files: Mapping[str, Any], modules: Sequence[str]) -> list[str]:
    """What a reader must know of adapters that are not of one make."""
    notes = []
    bases = {name: file.base for name, file in files.items() if file.base}
    if len(set(bases.values())) > 1:
        told = "; ".join(f"{name}: {base}" for name, base in bases.items())
        notes.append(f"The configs name different bases ({told}): a cosine between them means little.")
    for name, file in files.items():
        if len(file.modules) > len(modules):
            alone = next(module for module in file.modules if module not in set(modules))
            missing, has = len(file.modules) - len(modules), len(file.modules)
            notes.append(f"{name}: {missing} of its {has} modules are left out, which not all adapters have ({alone}).")
    return notes


def _start(one: Given, start: Path | None, inputs: dict[str, Path]) -> Any:
    """Where A0 is known from: an adapter that holds it, or the seed that a training of this tool noted."""
    from orchestrator.steps.geometry import Place

    if start is not None:
        inputs["start"] = start
        return Place("start", ".")
    seed = one.training.get("init_seed")
    return seed if isinstance(seed, int) else None


def trainings(given: Sequence[Given]) -> list[dict[str, Any]]:
    """Rows as a study's results have them, for adapters that this tool trained; replicas are known as such."""
    rows: list[dict[str, Any]] = []
    for one in given:
        config = one.training
        if not config:
            continue
        row = {"name": one.name, "method": config.get("method"), "objective": config.get("method"), "role": "method"}
        row |= {key: config.get(key) for key in ("learning_rate", "init_seed", "order_seed", "report_step")}
        row["settings"] = json.dumps([config.get("settings"), config.get("adapter")], sort_keys=True)
        for first in rows:
            differs = [key for key in ("learning_rate", "init_seed", "order_seed") if row[key] != first[key]]
            alike = (row["method"], row["settings"]) == (first["method"], first["settings"])
            if first["role"] == "method" and alike and len(differs) == 1:
                row |= {"role": {"learning_rate": "rate", "init_seed": "init"}.get(differs[0], "order")}
                row |= {"of": first["name"]}
                break
        rows.append(row)
    return [{k: v for k, v in row.items() if k != "settings"} | {"status": "done", "error": None} for row in rows]


def floors(rows: Sequence[Mapping[str, Any]], geometry: Mapping[str, Any]) -> dict[str, Any]:
    """Replicas beside their own, the first of each kind; and an adapter beside itself."""
    names = {"order": "order", "init": "init", "rate": "learning_rate"}
    found: dict[str, Any] = {}
    for row in rows:
        entry = next((p for p in geometry["pairs"] if {p["a"], p["b"]} == {row.get("of"), row["name"]}), None)
        if row["role"] in names and entry:
            found.setdefault(names[row["role"]], entry)
    return found | {"itself": geometry["itself"]}


def base_note(base: str) -> dict[str, Any]:
    """Where the base lies: a folder here, or a name on the hub with its commit."""
    from types import SimpleNamespace

    from orchestrator.facts import hub_commit, local_folder

    if Path(base).is_dir():
        local_folder(SimpleNamespace(path=base))
        return {"name": base, "kind": "local", "folder": str(Path(base).resolve())}
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        raise UserError(f"--base {base} is neither a folder nor a hub name: name the adapters' base model")
    return {"name": base, "kind": "hub", "revision": hub_commit(base)}


def _rows(options: argparse.Namespace, base: Path) -> list[tuple[list[int], list[int]]]:
    """Rollouts as the base's tokens, evenly spaced over the file."""
    from orchestrator.prompting import Prompter
    from orchestrator.rollout_file import read_rollouts
    from orchestrator.steps.activations import spread
    from orchestrator.steps.base import model_folder

    prompter = Prompter(model_folder(base), PROMPT)
    rows = spread(read_rollouts(options.rollouts), options.rows)
    return [
        (
            prompter.prompt_ids(row.problem, INSTRUCTION)[-PROMPT["max_prompt_tokens"] :],
            prompter.completion_ids(row.completion)[: PROMPT["max_answer_tokens"]],
        )
        for row in rows
    ]


def cores() -> int:
    return len(os.sched_getaffinity(0))


def threads(inputs: Inputs) -> Share:
    """Items side by side on this machine's cores, each on one BLAS thread, so that the bytes are those of a cluster."""

    def share(function: Callable[[Any, Inputs], Any], items: Iterable[Any]) -> list[Any]:
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(lambda item: function(item, inputs), items))

    return share


def _provenance(given: Sequence[Given], options: argparse.Namespace, begun: float) -> dict[str, Any]:
    from orchestrator.reporting import versions

    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "wall_seconds": time.time() - begun,
        "adapters": {one.name: str(one.path) for one in given},
        "base": options.base,
        "versions": versions(),
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "steps": [],
    }


def _out(out: Path) -> Path:
    """Where the report goes: a new or empty folder, or one that holds an earlier comparison."""
    try:
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not _is_comparison(out))):
            raise UserError(f"--out {out} holds something else: name another folder")
    except (OSError, ValueError) as error:
        raise UserError(f"--out {str(out)[:200]!r} cannot be a folder: {error}"[:300]) from None
    return out


def _is_comparison(out: Path) -> bool:
    try:
        return "comparison" in json.loads((out / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _write(results: dict[str, Any], provenance: dict[str, Any], out: Path) -> None:
    """Rendered aside, then put in place part by part; results.json first, since it makes the folder ours."""
    from analysis.report import render

    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished-", dir=out) as folder:
        aside = Path(folder) / "report"
        render(results, provenance, aside)
        for name in sorted(PARTS, key=lambda name: name != "results.json"):
            target = out / name
            if target.is_dir():
                shutil.rmtree(target)
            if (aside / name).exists():
                os.replace(aside / name, target)
