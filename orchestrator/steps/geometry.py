"""What the objectives did to the weights: every pair of adapters at every module, from the low-rank factors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from analysis.chance import floors
from analysis.geometry import ModuleGeometry, module_geometry
from analysis.lora import AdapterFile, load_adapter, module_names, shared_modules
from analysis.summary import summarise
from orchestrator.context import Context, Inputs
from orchestrator.context import adapters as adapters_of
from orchestrator.store import write_json
from orchestrator.threads import pin

FILE = "geometry.json"
MODULES_A_TASK = 16  # a Ray task costs more than a module


class Task(NamedTuple):
    """What one worker gets: some of the modules, and how they are measured."""

    modules: list[str]
    top: int
    threads: int


def run(context: Context) -> None:
    """Writes ``geometry.json``: adapters, pairs, layers, the Gram, and both floors of chance."""
    adapters = context.adapters()
    if len(adapters) < 2:
        raise ValueError(f"{len(adapters)} adapter was trained: geometry compares two or more")
    modules = shared_modules([module_names(path) for path in adapters.values()])
    size = MODULES_A_TASK
    chunks = [
        Task(modules[i : i + size], context.config["top"], context.config["threads"])
        for i in range(0, len(modules), size)
    ]
    context.say(f"{len(adapters)} adapters at {len(modules)} modules")
    found = [pair for chunk in context.share(measure, chunks) for pair in chunk]
    result = summarise(list(adapters), dict(found))
    context.say("the floors of chance")
    generator = torch.Generator().manual_seed(context.config["seed"])
    first = load_adapter(next(iter(adapters.values()))).modules
    result["chance"] = floors(first, context.config["top"], generator=generator, draws=context.config["chance_draws"])
    write_json(context.out / FILE, result)


def measure(task: Task, inputs: Inputs) -> list[tuple[str, ModuleGeometry]]:
    """All adapters at some of the modules."""
    pin(task.threads)
    files = [AdapterFile(path) for path in adapters_of(inputs).values()]
    return [(name, module_geometry([file.factors(name) for file in files], task.top)) for name in task.modules]


def read_geometry(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text())
