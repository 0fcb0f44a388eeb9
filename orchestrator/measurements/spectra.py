"""Updates against the base weights: shares in their top singular directions, and intruder dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from analysis.weights.base_file import TIED, BaseFile
from analysis.weights.base_weights import BaseGeometry, module_base_geometry, summarise_base
from analysis.weights.modules import layer_of
from execution.context import Inputs, ParallelMap
from models.adapter import AdapterFile
from orchestrator.measurements.geometry import Place, shared
from orchestrator.runtime.threads import pin
from orchestrator.steps.base import model_folder

MODULES_A_TASK = 4  # seconds each


class Task(NamedTuple):
    """One worker's task: some of the modules, and the adapters."""

    modules: list[str]
    adapters: list[Place]
    top: int
    threshold: float
    threads: int


def survey(
    places: Mapping[str, Place], inputs: Inputs, config: Mapping[str, Any], parallel_map: ParallelMap, progress: Any
) -> dict[str, Any]:
    """The ``spectra`` part of the results. ``config``: top, threshold, threads.

    ``left_out`` lists the modules without a weight of their own in the base, or with another vocabulary, with reasons.
    """
    base = BaseFile(model_folder(inputs["base"]))
    held = list(places.values())
    first = AdapterFile(held[0].path(inputs))
    modules, left_out = [], []
    for module in shared(held, inputs):
        why = _why_not(base, module, first.shape(module))
        if why is None:
            modules.append(module)
        else:
            left_out.append({"module": module, "why": why})
    if not modules and not all(row["why"] == TIED for row in left_out):
        raise ValueError(f"{base.folder} has none of the adapters' modules: is this their base?")
    if not modules:
        raise NothingBeside(f"{left_out[0]['module']} is {TIED}")
    chunks = [
        Task(modules[i : i + MODULES_A_TASK], held, config["top"], config["threshold"], config["threads"])
        for i in range(0, len(modules), MODULES_A_TASK)
    ]
    progress(f"{len(places)} adapters beside {len(modules)} base weights")
    by_module = {module: geometry for part in parallel_map(measure, chunks) for module, geometry in part}
    return summarise_base(list(places), by_module) | {"left_out": left_out}


class NothingBeside(ValueError):
    """All adapted modules are tied to others; adapters and base are valid."""


def _why_not(base: BaseFile, module: str, shape: tuple[int, int]) -> str | None:
    """Why a module is left out, or None. A layer's weight with another shape is not left out but an error later."""
    if not base.has(module):
        return base.lacks(module)
    if layer_of(module) is None and base.shape(module) not in (shape, shape[::-1]):
        return f"{' x '.join(map(str, base.shape(module)))} in the base, {' x '.join(map(str, shape))} here"
    return None


def measure(task: Task, inputs: Inputs) -> list[tuple[str, BaseGeometry]]:
    """All adapters against the base weights of the task's modules."""
    pin(task.threads)
    base = BaseFile(model_folder(inputs["base"]))
    files = [AdapterFile(place.path(inputs)) for place in task.adapters]
    return [(module, _at(module, base, files, task)) for module in task.modules]


def _at(module: str, base: BaseFile, files: Sequence[AdapterFile], task: Task) -> BaseGeometry:
    factors = [file.factors(module) for file in files]
    shape = files[0].shape(module)
    turned = base.is_turned(module, shape, [bool(file.config.get("fan_in_fan_out")) for file in files])
    weight = base.weight(module, shape, turned)
    return module_base_geometry(weight, factors, task.top, task.threshold)
