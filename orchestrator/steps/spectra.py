"""The updates beside the base weights: what lies in their top directions, what comes from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.base_file import BaseFile
from analysis.base_weights import BaseGeometry, module_base_geometry, summarise_base
from analysis.lora import AdapterFile
from orchestrator.context import Context, Inputs, Share
from orchestrator.steps.base import model_folder
from orchestrator.steps.geometry import Place, shared
from orchestrator.store import write_json
from orchestrator.threads import pin

FILE = "spectra.json"
MODULES_A_TASK = 4  # seconds each


class Task(NamedTuple):
    """What one worker gets: some of the modules, and the adapters."""

    modules: list[str]
    adapters: list[Place]
    top: int
    threshold: float
    threads: int


def run(context: Context) -> None:
    """Writes ``spectra.json``: shares, relative norms and intruder dimensions of every adapter."""
    places = {name: Place(f"adapter:{name}", "adapter") for name in context.adapters()}
    if not places:
        raise ValueError("no adapter was trained: there is no update to look at")
    write_json(context.out / FILE, survey(places, context.inputs, context.config, context.share, context.say))


def survey(
    places: Mapping[str, Place], inputs: Inputs, config: Mapping[str, Any], share: Share, say: Any
) -> dict[str, Any]:
    """The ``spectra`` part of the results. ``config``: top, threshold, threads."""
    base = BaseFile(model_folder(inputs["base"]))
    modules = [module for module in shared(list(places.values()), inputs) if base.has(module)]
    if not modules:
        raise ValueError(f"{base.folder} has none of the adapters' modules: is this their base?")
    held = list(places.values())
    chunks = [
        Task(modules[i : i + MODULES_A_TASK], held, config["top"], config["threshold"], config["threads"])
        for i in range(0, len(modules), MODULES_A_TASK)
    ]
    say(f"{len(places)} adapters beside {len(modules)} base weights")
    found = {module: geometry for part in share(measure, chunks) for module, geometry in part}
    return summarise_base(list(places), found)


def measure(task: Task, inputs: Inputs) -> list[tuple[str, BaseGeometry]]:
    """All adapters beside some of the base's weights."""
    pin(task.threads)
    base = BaseFile(model_folder(inputs["base"]))
    files = [AdapterFile(place.path(inputs)) for place in task.adapters]
    return [(module, _at(module, base, files, task)) for module in task.modules]


def _at(module: str, base: BaseFile, files: Sequence[AdapterFile], task: Task) -> BaseGeometry:
    factors = [file.factors(module) for file in files]
    turned = {bool(file.config.get("fan_in_fan_out")) for file in files}
    if len(turned) > 1:
        raise ValueError("the adapters' configs disagree on fan_in_fan_out, so their base's weights cannot be read")
    weight = base.weight(module, files[0].shape(module), turned.pop())
    return module_base_geometry(weight, factors, task.top, task.threshold)


def read_spectra(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text())
