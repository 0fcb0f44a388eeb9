"""``compare``: the geometry laboratory on anyone's adapters, without a study: PEFT LoRA folders in, a report out."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from execution.clock import Began
from execution.context import Inputs, ParallelMap
from execution.errors import DONE, FAILED, UserError, joined
from execution.store import file_hash
from execution.workspace import own
from orchestrator.compare import beside_base
from orchestrator.compare.adapter_names import Given, hub_name, resolve
from report.escape import tell

if TYPE_CHECKING:
    from results import Results
    from results.document import Measured
    from results.study import Comparison
    from results.trainings import AnyTraining
    from results.weights import MeasuredGeometry

ANALYSIS = {"top": 10, "threads": 1, "seed": 0, "chance_draws": 8}
PARTS = ("results.json", "report.html", "provenance.json", "csv", "figures")  # the first makes the folder ours
ASIDE = ".unfinished-"
MAY_DIFFER = ("learning_rate", "init_seed", "order_seed")  # of these one, between a training and its replica
Say = Callable[[str], None]


def compare(options: argparse.Namespace, progress: Say) -> int:
    """Measure, render, and say where the page is. What is wrong with the input is a ``UserError`` of one line."""
    begun = Began.now()
    with _one_line():
        out = _out(options.out)
        given = resolve(options.adapters)
        _look(given, options)
        results, noted = _measure(given, options, progress)
    try:
        _write(results, _provenance(given, options, begun) | noted, out)
    except OSError as error:
        tell(f"error: {out} cannot be written ({error.strerror or error}): name another --out", sys.stderr)
        return FAILED
    tell(f"report: {out / 'report.html'}")
    return DONE


@contextmanager
def _one_line() -> Iterator[None]:
    """What input has wrong with it, in one line. Results that do not fit their types are a defect of this tool."""
    try:
        yield
    except (UserError, ValidationError):
        raise
    except (ValueError, OSError) as error:
        raise UserError(joined(error, 600)) from None


def _look(given: Sequence[Given], options: argparse.Namespace) -> None:
    """What can be said before anything heavy is imported: a refusal comes within a second."""
    from models.adapter_config import read_config

    if len(given) < 2:
        raise UserError("one adapter has nothing to be compared with: name two or more")
    if options.rollouts is not None and options.base is None:
        raise UserError("--rollouts needs --base: the updates are weighed with the base's own activations")
    for path in [path for one in given for path in (one.path, *one.checkpoints.values())]:
        read_config(path)
    if options.start is not None:
        read_config(options.start)
    if options.base is not None:
        beside_base.look(options.base, options.rollouts)


def _measure(given: Sequence[Given], options: argparse.Namespace, progress: Say) -> tuple[Results, dict[str, Any]]:
    """The results, and what of the input goes into the provenance."""
    from models.adapter import AdapterFile
    from orchestrator.measurements import geometry
    from results.document import Measured
    from results.study import ComparedAdapter, Comparison
    from results.weights import MeasuredGeometry

    inputs: dict[str, Path] = {f"adapter:{i}": one.path for i, one in enumerate(given)}
    places = {one.name: geometry.Place(f"adapter:{i}", ".") for i, one in enumerate(given)}
    files = {one.name: AdapterFile(one.path) for one in given}
    modules = geometry.shared(list(places.values()), inputs)
    notes = _notes(given, files, modules)
    subjects = _subjects(given, files, modules, options.start, inputs, notes)
    for note in notes:
        progress(note)
    measured = Measured()
    base = None
    if options.base is not None:
        # Before the geometry: what is wrong with the base is said before any work is done.
        start = subjects[0].drawn
        base, measured, more = beside_base.survey(places, inputs, options, threads, progress, start)
        notes += more
    top = min(options.top, max(f.rank(module) for f in files.values() for module in modules))
    adapters = [
        ComparedAdapter(name=name, base=f.base, modules=len(f.modules), rslora=bool(f.config.get("use_rslora")))
        for name, f in files.items()
    ]
    comparison = Comparison(adapters=adapters, shared_modules=len(modules), notes=notes)
    measurements, _ = geometry.survey(subjects, inputs, ANALYSIS | {"top": top}, threads(inputs), progress)
    return _joined(given, measured, MeasuredGeometry.model_validate(measurements), comparison), {"base_folder": base}


def _notes(given: Sequence[Given], files: Mapping[str, Any], modules: Sequence[str]) -> list[str]:
    """What a reader must know of adapters that are not of one make."""
    notes = _base_notes(given, files)
    ranks = {name: [file.rank(module) for module in modules] for name, file in files.items()}
    if any(held != ranks[given[0].name] for held in ranks.values()):
        spans = {name: (min(held), max(held)) for name, held in ranks.items()}
        listed_ranks = ", ".join(
            f"{name}: {low if low == high else f'{low} to {high}'}" for name, (low, high) in spans.items()
        )
        notes.append(f"The ranks differ ({listed_ranks}): chance is drawn for {given[0].name} alone.")
    for name, file in files.items():
        used = {file.own_name(module) for module in modules}
        alone = [module for module in file.modules if module not in used]
        if alone:
            missing, has = len(alone), len(file.modules)
            notes.append(
                f"{name}: {missing} of its {has} modules are left out, not in all adapters in one shape ({alone[0]})."
            )
        other = next((module for module in modules if module not in file.modules), None)
        if other is not None:
            notes.append(f"{name}: {file.own_name(other)} is read as {other}, and its other modules likewise.")
        notes += [f"{name}: {line}" for line in file.beside_factors()]
    steps = {one.step for one in given if one.path.resolve().name != "adapter" and one.step is not None}
    if not given[0].checkpoints and len(steps) > 1:
        notes.append(f"Compared as they are, at unlike steps ({', '.join(map(str, sorted(steps)))}).")
    if given[0].checkpoints:
        notes.append(f"Compared at step {given[0].step}, the last that all trainings have here.")
    return notes


def _base_notes(given: Sequence[Given], files: Mapping[str, Any]) -> list[str]:
    """Trainings of this tool know their base by its key, wherever it lies; all others by the name in their config."""
    known = {(one.record.get("inputs") or {}).get("base") for one in given}
    bases = {name: hub_name(file.base) or file.base for name, file in files.items() if file.base}
    if None not in known and len(known) == 1:
        return []
    if None in known and len(set(bases.values())) < 2:
        return []
    named = "; ".join(f"{name}: {base}" for name, base in bases.items())
    return [f"The configs name different bases ({named}): a cosine between them means little."]


def _subjects(
    given: Sequence[Given],
    files: Mapping[str, Any],
    modules: Sequence[str],
    start: Path | None,
    inputs: dict[str, Path],
    notes: list[str],
) -> list[Any]:
    """What is measured, with where each one's A0, or B0, is known from: the seed that this tool noted, or ``--start``,
    whose factor that is not zero is the one that was drawn."""
    from models.adapter import AdapterFile, Start
    from orchestrator.measurements.geometry import Place, Subject

    begin = None if start is None else AdapterFile(start)
    if start is not None:
        inputs["start"] = start
    begun: Start = "a"
    if begin is not None and begin.own_name(modules[0]):
        b, a, _ = begin.saved(modules[0])
        begun = "b" if bool(b.any()) and not a.any() else "a"
    subjects = []
    for i, one in enumerate(given):
        saved = {}
        for step, path in one.checkpoints.items():
            inputs[f"checkpoint:{i}:{step}"] = path
            saved[step] = Place(f"checkpoint:{i}:{step}", ".")
        known: int | Place | None = one.config.get("init_seed")
        known = known if isinstance(known, int) else None
        drawn: Start = one.start
        if known is None and begin is not None:
            if all(begin.own_name(module) and begin.fits(files[one.name], module, begun) for module in modules):
                known, drawn = Place("start", "."), begun
            else:
                letter = begun.upper()
                notes.append(
                    f"{one.name}: --start has other modules or ranks, so how far its {letter} moved is not known."
                )
        subjects.append(Subject(one.name, Place(f"adapter:{i}", "."), known, saved, drawn))
    if begin is not None and not any(isinstance(subject.start, Place) for subject in subjects):
        raise UserError(
            f"--start {start} has other modules or ranks than every adapter, or all starts are known: leave it"
        )
    return subjects


def _joined(given: Sequence[Given], measured: Measured, geometry: MeasuredGeometry, comparison: Comparison) -> Results:
    """The results, with what the adapters are beside the one that the others are compared to."""
    from orchestrator.results.reference import directions, listed, with_floors
    from results import VERSION, Results
    from results.headline import reference_among
    from results.part import present

    names = [one.name for one in given]
    reference = reference_among(names)
    rows = trainings(given, reference)
    method_of = {one.name: _method(one) for one in given}
    parts = dict(measured) | {
        "geometry": with_floors(geometry, rows, reference),
        "headline": list(listed(names, rows, reference)),
        "directions": directions(geometry, rows, reference, method_of=method_of),
    }
    return Results(version=VERSION, trainings=rows, comparison=comparison, **present(**parts))


def trainings(given: Sequence[Given], reference: str) -> list[AnyTraining]:
    """Rows as a study's results have them, for adapters that this tool trained; replicas are known as such.

    A replica is the same training but for MAY_DIFFER: same code, base, rollouts, settings, and step; ``of`` is the
    first such. Another learning rate is a floor of the reference, and a point of a sweep of any other method.
    """
    from results.trainings import GivenTraining, Role

    rows: list[AnyTraining] = []
    known: dict[str, list[Given]] = {}
    for one in (one for one in given if one.record):
        role: Role = "method"
        same = known.setdefault(_identity(one), [])
        for first in same:
            differs = [key for key in MAY_DIFFER if one.config.get(key) != first.config.get(key)]
            # Anything may be repeated in another order, its sweep's points too.
            if differs == ["order_seed"] or (len(differs) == 1 and first is same[0]):
                rate: Role = "rate" if first.name == reference else "sweep"
                roles: dict[str, Role] = {"learning_rate": rate, "init_seed": "init", "order_seed": "order"}
                role = roles[differs[0]]
                break
        of = same[0].name if same else None
        same.append(one)
        assert one.step is not None, "a record has one"
        settings = {key: one.config[key] for key in ("method", *MAY_DIFFER)}
        settings |= {"objective": one.config["method"], "start": one.start}
        rows.append(
            GivenTraining(name=one.name, role=role, of=of, report_step=one.step, status="done", error=None, **settings)
        )
    return rows


def _identity(one: Given) -> str:
    """All that a training and its replica have in common."""
    settings = {key: value for key, value in one.config.items() if key not in MAY_DIFFER}
    return json.dumps([one.record.get("version"), one.record.get("inputs"), settings, one.step], sort_keys=True)


def _method(one: Given) -> str:
    """What counts as one method: an objective in one form on one kind of adapter, or an adapter from elsewhere."""
    kept = [one.config.get(key) for key in ("method", "settings", "adapter")]
    return json.dumps(kept, sort_keys=True) if one.record else one.name


def threads(inputs: Inputs) -> ParallelMap:
    """Items side by side on this machine's cores, each on one BLAS thread, so that no byte depends on how many."""

    def share(function: Callable[[Any, Inputs], Any], items: Iterable[Any]) -> list[Any]:
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        try:
            return list(pool.map(lambda item: function(item, inputs), items))
        finally:
            pool.shutdown(cancel_futures=True)

    return share


def _provenance(given: Sequence[Given], options: argparse.Namespace, begun: Began) -> dict[str, Any]:
    from models.adapter_config import WEIGHTS
    from orchestrator.results.write_report import versions

    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun.date)),
        "wall_seconds": begun.seconds(),
        "adapters": [
            {"name": one.name, "folder": str(one.path), "sha256": file_hash(one.path / WEIGHTS)} for one in given
        ],
        "base": options.base,
        "rollouts": None if options.rollouts is None else str(options.rollouts),
        "rows": options.rows,
        "start": None if options.start is None else str(options.start),
        "versions": versions(),
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "steps": [],
    }


def _out(out: Path) -> Path:
    """Where the report goes: a new or empty folder, or one that holds an earlier comparison; it can be written."""
    try:
        if out == Path() or (out.is_symlink() and not out.exists()):
            raise UserError(f"--out {out} is no folder of its own: name one")
        there = [path for path in out.iterdir() if not path.name.startswith(ASIDE)] if out.is_dir() else []
        if (out.exists() and not out.is_dir()) or (there and not _is_comparison(out)):
            raise UserError(f"--out {out} holds something else: name another folder")
        nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise UserError(f"--out {out}: {nearest} is no folder that can be written: name another")
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"--out {str(out)[:200]!r} cannot be a folder: {error}"[:300]) from None
    return out


def _is_comparison(out: Path) -> bool:
    try:
        if not (out / PARTS[0]).is_file():
            return False
        document = json.loads((out / PARTS[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and isinstance(document.get("comparison"), dict)


def _write(results: Results, provenance: dict[str, Any], out: Path) -> None:
    """Rendered aside, then put in place part by part."""
    from report.render import render

    out.mkdir(parents=True, exist_ok=True)
    new = not any(out.iterdir())
    try:
        _replace(render, results, provenance, out)
    except BaseException:
        if new:
            with suppress(OSError):
                out.rmdir()  # where nothing was put into it
        raise


def _replace(render: Callable[..., None], results: Results, provenance: dict[str, Any], out: Path) -> None:

    with own(ASIDE, out) as folder:
        aside = folder / "report"
        render(results, provenance, aside)
        for name in PARTS:
            target = out / name
            if target.is_symlink() or target.is_file():
                target.unlink()
            elif target.is_dir():
                shutil.rmtree(target)
            if (aside / name).exists():
                os.replace(aside / name, target)
