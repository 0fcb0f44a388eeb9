"""Weight geometry: every pair of adapters at every module, from the low-rank factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from analysis.weights.chance import floors
from analysis.weights.geometry import ModuleGeometry, inner, module_geometry
from analysis.weights.modules import shared_modules
from analysis.weights.start import Left, left_start, over_modules
from analysis.weights.summary import summarise
from execution.context import Inputs, ParallelMap
from methods.training.start import initial_a
from models.adapter import AdapterFile, Factors
from models.module_names import natural_key
from orchestrator.runtime.threads import pin

MODULES_A_TASK = 16  # a Ray task costs more than a module


class Place(NamedTuple):
    """Location of an adapter: the input's role, and the folder within it."""

    role: str
    folder: str

    def path(self, inputs: Inputs) -> Path:
        return inputs[self.role] / self.folder


class Subject(NamedTuple):
    """One adapter to measure: the seed of its initial A or an adapter that contains it, and its checkpoints by step."""

    name: str
    place: Place
    start: int | Place | None = None
    checkpoints: Mapping[int, Place] = {}


class Task(NamedTuple):
    """One worker's task: some of the modules, and the settings."""

    modules: list[str]
    subjects: list[Subject]
    top: int
    threads: int


class Part(NamedTuple):
    """The result at one module. ``itself``: the first adapter against the same delta in other factors. ``along``: per
    checkpoint step, the geometry of the adapters that have it and their inner products with their final deltas."""

    module: str
    geometry: ModuleGeometry
    itself: ModuleGeometry
    left: list[Left | None]
    along: dict[int, tuple[ModuleGeometry, list[float]]]


def survey(
    subjects: Sequence[Subject], inputs: Inputs, config: Mapping[str, Any], parallel_map: ParallelMap, progress: Any
) -> dict[str, Any]:
    """The ``geometry`` part of the results. ``config``: top, threads, seed, chance_draws."""
    modules = shared([subject.place for subject in subjects], inputs)
    chunks = [
        Task(modules[i : i + MODULES_A_TASK], list(subjects), config["top"], config["threads"])
        for i in range(0, len(modules), MODULES_A_TASK)
    ]
    progress(f"{len(subjects)} adapters at {len(modules)} modules")
    parts = [part for chunk in parallel_map(measure, chunks) for part in chunk]
    names = [subject.name for subject in subjects]
    result = summarise(names, {part.module: part.geometry for part in parts})
    itself = summarise([names[0], "itself"], {part.module: part.itself for part in parts})["pairs"][0]
    result["itself"] = itself | {"b": names[0]}
    _add_starts(result, parts)
    result["along"] = _along(subjects, parts, result)
    progress("computing chance levels")
    generator = torch.Generator().manual_seed(config["seed"])
    first = AdapterFile(subjects[0].place.path(inputs))
    factors = {module: first.factors(module) for module in modules}
    result["chance"] = floors(factors, config["top"], generator=generator, draws=config["chance_draws"])
    result["chance"]["of"] = names[0]
    return result


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
        left = [None if start is None else _left(start, module, f) for start, f in zip(starts, ends, strict=True)]
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
            path[step] = (module_geometry(then, task.top), onward)
        result.append(Part(module, module_geometry(ends, task.top), itself, left, path))
    return result


def _common_steps(subjects: Sequence[Subject]) -> list[tuple[int, list[int]]]:
    """Steps with checkpoints of two or more subjects, and the indices of these."""
    steps = sorted({step for subject in subjects for step in subject.checkpoints})
    having = [(step, [i for i, subject in enumerate(subjects) if step in subject.checkpoints]) for step in steps]
    return [(step, have) for step, have in having if len(have) > 1]


def _start(subject: Subject, inputs: Inputs) -> int | AdapterFile | None:
    return AdapterFile(subject.start.path(inputs)) if isinstance(subject.start, Place) else subject.start


def _left(start: int | AdapterFile, module: str, factors: Factors) -> Left:
    if isinstance(start, AdapterFile):
        a0 = start.factors(module).a
    else:
        a0 = initial_a(start, module, *factors.a.shape)
    try:
        return left_start(factors, a0)
    except ValueError as error:
        raise ValueError(f"module {module}: {error}") from None


def refactored(factors: Factors) -> Factors:
    """The same delta in other factors, B G and G^-1 A with a fixed random rotation G, to measure rounding."""
    rank = factors.a.shape[0]
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64)).Q
    return Factors(factors.b.double() @ turn, turn.T @ factors.a.double())


def _add_starts(result: dict[str, Any], parts: Sequence[Part]) -> None:
    """Add a_moved_rel and start_share to the result's entries of each adapter, over all modules and at each."""
    whole = over_modules({part.module: part.left for part in parts})
    entries = [*zip(result["adapters"], whole, strict=True)]
    ordered = sorted(parts, key=lambda part: natural_key(part.module))
    by_adapter = zip(*(part.left for part in ordered), strict=True)
    entries += zip(result["adapter_modules"], [one for column in by_adapter for one in column], strict=True)
    for entry, left in entries:
        entry["a_moved_rel"] = None if left is None else left.a_moved_rel
        entry["start_share"] = None if left is None else left.start_share


def _along(subjects: Sequence[Subject], parts: Sequence[Part], result: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs and adapters at every common checkpoint, with each adapter's cosine to its final delta."""
    ordered = sorted(parts, key=lambda part: natural_key(part.module))
    norms = [entry["norm"] for entry in result["adapters"]]
    pairs, adapters = [], []
    for step, have in _common_steps(subjects):
        summary = summarise([subjects[i].name for i in have], {part.module: part.along[step][0] for part in ordered})
        pairs += [{"step": step, **entry} for entry in summary["pairs"]]
        onward = [math.fsum(column) for column in zip(*(part.along[step][1] for part in ordered), strict=True)]
        for entry, product, end in zip(summary["adapters"], onward, (norms[i] for i in have), strict=True):
            scale = entry["norm"] * end
            to_end = max(-1.0, min(1.0, product / scale)) if scale > 0 else None
            adapters.append({"step": step, **entry, "to_end": to_end})
    return {"pairs": pairs, "adapters": adapters}
