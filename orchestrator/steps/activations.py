"""What the updates do to the inputs that their modules really get: the geometry that survives another initial A."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from analysis.activations import input_products, summarise_activations, weighted_gram
from analysis.chance import expected_cosines
from analysis.forward import Row, inner_linear
from analysis.lora import AdapterFile, load_adapter
from models.base import load
from orchestrator.context import Context, Inputs, Share
from orchestrator.cost import MODULES_A_PASS
from orchestrator.device import device
from orchestrator.plan import ROWS_A_SHARD
from orchestrator.steps.base import model_folder
from orchestrator.steps.geometry import Place, shared
from orchestrator.store import write_json
from orchestrator.table import read_table
from orchestrator.threads import pin

FILE = "activations.json"
BATCH = 8

Matrix = list[list[float]]
Shard = dict[str, tuple[Matrix, Matrix]]  # module -> M x M and the first adapter's r x r a S a.T, summed over tokens


class Task(NamedTuple):
    """What one worker gets: shards of rows, and the adapters."""

    shards: list[list[Row]]
    modules: list[str]
    adapters: list[Place]
    threads: int


def run(context: Context) -> None:
    """Writes ``activations.json``: activation-weighted norms, cosines and Gram of all adapters, on training rows."""
    places = {name: Place(f"adapter:{name}", "adapter") for name in context.adapters()}
    if len(places) < 2:
        raise ValueError(f"{len(places)} adapter was trained: a cosine compares two or more")
    table = read_table(context.inputs["rollouts"], "train")
    rows = [(row["prompt_ids"], row["completion_ids"]) for row in spread(table, context.config["rows"])]
    found = survey(places, rows, context.inputs, context.config["threads"], context.share, context.slots, context.say)
    write_json(context.out / FILE, found)


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """``count`` of the rows, or all where there are fewer, evenly spaced."""
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)


def survey(
    places: dict[str, Place], rows: Sequence[Row], inputs: Inputs, threads: int, share: Share, slots: int, say: Any
) -> dict[str, Any]:
    """The ``activations`` part of the results: rows, what ``summarise_activations`` tells, and chance: the root mean
    square of the cosine of two random deltas on the first adapter's A."""
    modules = shared(list(places.values()), inputs)
    rows = [row for row in rows if row[1]]
    if not rows:
        raise ValueError("no row with a completion: there is nothing to measure the updates on")
    shards = [list(rows[i : i + ROWS_A_SHARD]) for i in range(0, len(rows), ROWS_A_SHARD)]
    workers = min(slots, len(shards))
    tasks = [Task(shards[i::workers], modules, list(places.values()), threads) for i in range(workers)]
    say(f"{len(places)} adapters at {len(modules)} modules on {len(rows)} rows")
    dealt = share(measure, tasks)
    # Back into the order of the rows, whoever measured them.
    parts = [dealt[i % workers][i // workers] for i in range(len(shards))]
    modules = list(parts[0][0])  # an output head and what is no linear module are left out
    tokens = sum(count for _, count in parts)
    grams = {module: _mean([sums[module][0] for sums, _ in parts], tokens) for module in modules}
    first = AdapterFile(next(iter(places.values())).path(inputs))
    given_a = [
        (*first.shape(module), torch.tensor(_mean([sums[module][1] for sums, _ in parts], tokens), dtype=torch.float64))
        for module in modules
    ]
    found = summarise_activations(list(places), grams, tokens)
    return {"rows": len(rows), "modules": len(modules), **found, "chance": expected_cosines(given_a)["shared_a"]}


def _mean(sums: Sequence[Matrix], tokens: int) -> Matrix:
    """Of matrices that were summed over tokens, part by part."""
    return [[math.fsum(values) / tokens for values in zip(*lines, strict=True)] for lines in zip(*sums, strict=True)]


def measure(task: Task, inputs: Inputs) -> list[tuple[Shard, int]]:
    """Each shard's sums over its tokens, and how many these are."""
    pin(task.threads)
    model = load(model_folder(inputs["base"]), "float32", device=device())
    adapters = [load_adapter(place.path(inputs), dtype=torch.float32).modules for place in task.adapters]
    modules = [module for module in task.modules if inner_linear(model, module)]
    return [_shard(model, rows, adapters, modules) for rows in task.shards]


def _shard(model: Any, rows: Sequence[Row], adapters: list, modules: Sequence[str]) -> tuple[Shard, int]:
    sums: Shard = {}
    tokens = 0
    for some in _chunks(modules):
        products, tokens = input_products(model, rows, adapters, some, BATCH)
        for module in some:
            held = [factors[module] for factors in adapters]
            rank = len(held[0].a)
            gram = torch.tensor(weighted_gram(products[module], held), dtype=torch.float64)
            sums[module] = ((gram * tokens).tolist(), (products[module][:rank, :rank] * tokens).tolist())
    return sums, tokens


def _chunks(modules: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(modules), MODULES_A_PASS):
        yield modules[start : start + MODULES_A_PASS]


def read_activations(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text())
