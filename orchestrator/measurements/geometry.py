"""Weight geometry: every pair of adapters at every module, from the low-rank factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file

from analysis.weights.chance import floors
from analysis.weights.geometry import ModuleGeometry, inner, module_geometry
from analysis.weights.modules import shared_modules
from analysis.weights.start import Left, left_start, over_modules
from analysis.weights.summary import layer_grams, summarise
from execution.context import Inputs, ParallelMap
from methods.training.start import INITIAL
from models.adapter import AdapterFile, Factors, Start
from models.module_names import natural_key
from orchestrator.measurements.listed import ALL, Listed, listed
from orchestrator.runtime.threads import pin

MODULES_A_TASK = 16  # a Ray task costs more than a module


class Place(NamedTuple):
    """Location of an adapter: the input's role, and the folder within it."""

    role: str
    folder: str

    def path(self, inputs: Inputs) -> Path:
        return inputs[self.role] / self.folder


class Subject(NamedTuple):
    """One adapter to measure: the seed that its first factors were drawn from or an adapter that contains them, its
    checkpoints by step, and which factor was drawn."""

    name: str
    place: Place
    start: int | Place | None = None
    checkpoints: Mapping[int, Place] = {}
    drawn: Start = "a"


class Task(NamedTuple):
    """One worker's task: some of the modules, the settings, and which pairs are listed."""

    modules: list[str]
    subjects: list[Subject]
    top: int
    threads: int
    listed: Listed = ALL


class Part(NamedTuple):
    """The result at one module. ``itself``: the first adapter against the same delta in other factors. ``along``: per
    checkpoint step, the geometry of the adapters that have it, of the pairs listed in detail, and their inner products
    with their final deltas."""

    module: str
    geometry: ModuleGeometry
    itself: ModuleGeometry
    left: list[Left | None]
    along: dict[int, tuple[ModuleGeometry, list[float]]]


def survey(
    subjects: Sequence[Subject], inputs: Inputs, config: Mapping[str, Any], parallel_map: ParallelMap, progress: Any
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The ``geometry`` part of the results, and the layers' Grams, L x M x M, where it does not list every pair by
    layer. ``config``: top, threads, seed, chance_draws; of a study that lists some pairs alone also which."""
    modules = shared([subject.place for subject in subjects], inputs)
    names = [subject.name for subject in subjects]
    pairs = listed(names, config)
    chunks = [
        Task(modules[i : i + MODULES_A_TASK], list(subjects), config["top"], config["threads"], pairs)
        for i in range(0, len(modules), MODULES_A_TASK)
    ]
    progress(f"{len(subjects)} adapters at {len(modules)} modules")
    parts = [part for chunk in parallel_map(measure, chunks) for part in chunk]
    by_module = {part.module: part.geometry for part in parts}
    result = summarise(names, by_module, pairs.pairs, pairs.in_detail)
    itself = summarise([names[0], "itself"], {part.module: part.itself for part in parts})["pairs"][0]
    result["itself"] = itself | {"b": names[0]}
    _add_starts(result, parts, subjects)
    result["along"] = _along(subjects, parts, result, pairs)
    progress("computing chance levels")
    generator = torch.Generator().manual_seed(config["seed"])
    first = AdapterFile(subjects[0].place.path(inputs))
    factors = {module: first.factors(module) for module in modules}
    start = subjects[0].drawn
    result["chance"] = floors(factors, config["top"], generator=generator, draws=config["chance_draws"], start=start)
    result["chance"] |= {"of": names[0], **_stated(start)}
    return result, None if pairs.in_detail is None else layer_grams(by_module)


def write_layers(path: Path, grams: np.ndarray) -> None:
    """The layers' Grams, in the order of an adapter's layers."""
    save_file({"grams": np.ascontiguousarray(grams)}, path)


def shared(places: Sequence[Place], inputs: Inputs) -> list[str]:
    """The modules that all adapters have with the same shape; ValueError if there is none."""
    files = [AdapterFile(place.path(inputs)) for place in places]
    both = shared_modules([file.modules for file in files])
    same_shape = [module for module in both if len({file.shape(module) for file in files}) == 1]
    if not same_shape:
        raise ValueError(
            f"the adapters agree on no module's shape ({both[0]}: {_shapes(files, both[0])}): of one base?"
        )
    return same_shape


def _shapes(files: Sequence[AdapterFile], module: str) -> str:
    return ", ".join(sorted({f"{out} x {in_}" for out, in_ in (file.shape(module) for file in files)}))


def measure(task: Task, inputs: Inputs) -> list[Part]:
    """All adapters at the task's modules, with one module in memory at a time."""
    pin(task.threads)
    files = [AdapterFile(subject.place.path(inputs)) for subject in task.subjects]
    starts = [_start(subject, inputs) for subject in task.subjects]
    along = [
        (step, have, [AdapterFile(task.subjects[i].checkpoints[step].path(inputs)) for i in have])
        for step, have in _common_steps(task.subjects)
    ]
    result = []
    for module in task.modules:
        ends = [file.factors(module) for file in files]
        left = [
            None if start is None else _left(start, subject.drawn, module, file, ends[i])
            for i, (start, subject, file) in enumerate(zip(starts, task.subjects, files, strict=True))
        ]
        itself = module_geometry([ends[0], refactored(ends[0])], task.top)
        path = {}
        for step, have, saved in along:
            then = [file.factors(module) for file in saved]
            if any(
                len(f.b) != len(ends[i].b) or f.a.shape[1] != ends[i].a.shape[1]
                for f, i in zip(then, have, strict=True)
            ):
                raise ValueError(f"module {module}: a checkpoint at step {step} has another shape than its end")
            onward = [inner(f, ends[i]) for f, i in zip(then, have, strict=True)]
            then_pairs = _among(have, task.listed.detailed)
            path[step] = (module_geometry(then, task.top, then_pairs, whole_gram=False), onward)
        geometry = module_geometry(ends, task.top, task.listed.pairs)
        result.append(Part(module, geometry, itself, left, path))
    return result


def _among(have: Sequence[int], pairs: np.ndarray | None) -> np.ndarray | None:
    """The pairs of which both are in ``have``, by their places there."""
    if pairs is None:
        return None
    place = {subject: i for i, subject in enumerate(have)}
    kept = [(place[i], place[j]) for i, j in pairs.tolist() if i in place and j in place]
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def _common_steps(subjects: Sequence[Subject]) -> list[tuple[int, list[int]]]:
    """Steps with checkpoints of two or more subjects, and the indices of these."""
    steps = sorted({step for subject in subjects for step in subject.checkpoints})
    having = [(step, [i for i, subject in enumerate(subjects) if step in subject.checkpoints]) for step in steps]
    return [(step, have) for step, have in having if len(have) > 1]


def _start(subject: Subject, inputs: Inputs) -> int | AdapterFile | None:
    return AdapterFile(subject.start.path(inputs)) if isinstance(subject.start, Place) else subject.start


def _left(start: int | AdapterFile, drawn: Start, module: str, file: AdapterFile, factors: Factors) -> Left:
    if isinstance(start, AdapterFile):
        b, a, _ = start.saved(module)
        initial = (a if drawn == "a" else b).double()
    else:
        initial = INITIAL[drawn](start, module, *(factors.a if drawn == "a" else factors.b).shape).double()
    if drawn == "b":
        initial *= file.scale(module)  # as the factors have it
    try:
        return left_start(factors, initial, drawn)
    except ValueError as error:
        raise ValueError(f"module {module}: {error}") from None


def refactored(factors: Factors) -> Factors:
    """The same delta in other factors, B G and G^-1 A with a fixed random rotation G, to measure rounding."""
    rank = factors.a.shape[0]
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64)).Q
    return Factors(factors.b.double() @ turn, turn.T @ factors.a.double())


def _add_starts(result: dict[str, Any], parts: Sequence[Part], subjects: Sequence[Subject]) -> None:
    """Add a_moved_rel and start_share to the result's entries of each adapter, over all modules and at each, and start
    where that is b."""
    drawn = {subject.name: subject.drawn for subject in subjects}
    whole = over_modules({part.module: part.left for part in parts})
    entries = [*zip(result["adapters"], whole, strict=True)]
    ordered = sorted(parts, key=lambda part: natural_key(part.module))
    by_adapter = zip(*(part.left for part in ordered), strict=True)
    entries += zip(result["adapter_modules"], [one for column in by_adapter for one in column], strict=True)
    for entry, left in entries:
        entry["a_moved_rel"] = None if left is None else left.a_moved_rel
        entry["start_share"] = None if left is None else left.start_share
        entry |= _stated(drawn[entry["name"]])


def _stated(start: Start) -> dict[str, Start]:
    """As results have it: absent where A was drawn, as everywhere before there was a choice."""
    return {} if start == "a" else {"start": start}


def _along(
    subjects: Sequence[Subject], parts: Sequence[Part], result: Mapping[str, Any], listed: Listed
) -> dict[str, Any]:
    """Pairs and adapters at every common checkpoint, with each adapter's cosine to its final delta."""
    ordered = sorted(parts, key=lambda part: natural_key(part.module))
    norms = [entry["norm"] for entry in result["adapters"]]
    pairs, adapters = [], []
    for step, have in _common_steps(subjects):
        then = {part.module: part.along[step][0] for part in ordered}
        summary = summarise([subjects[i].name for i in have], then, _among(have, listed.detailed))
        pairs += [{"step": step, **entry} for entry in summary["pairs"]]
        onward = [math.fsum(column) for column in zip(*(part.along[step][1] for part in ordered), strict=True)]
        for entry, product, end in zip(summary["adapters"], onward, (norms[i] for i in have), strict=True):
            scale = entry["norm"] * end
            to_end = max(-1.0, min(1.0, product / scale)) if scale > 0 else None
            adapters.append({"step": step, **entry, "to_end": to_end})
    return {"pairs": pairs, "adapters": adapters}
