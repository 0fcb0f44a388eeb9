"""What the updates do to the inputs that their modules really get: the geometry that survives another initial A."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from analysis.function.activations import input_products, summarise_activations, weighted_gram
from analysis.function.forward import unattachable
from analysis.weights.chance import expected_cosines
from execution.context import Inputs, ParallelMap
from models.adapter import AdapterFile
from models.base import load
from models.logprobs import Row
from orchestrator.measurements.geometry import Place, shared
from orchestrator.runtime.device import device
from orchestrator.runtime.threads import pin
from orchestrator.steps.activations import MODULES_A_PASS, ROWS_A_SHARD
from orchestrator.steps.base import model_folder
from report import formats

BATCH = 8

Matrix = list[list[float]]
Shard = dict[str, tuple[Matrix, Matrix]]  # module -> M x M and the first adapter's r x r a S a.T, summed over tokens


class Task(NamedTuple):
    """What one worker gets: shards of rows, and the adapters."""

    shards: list[list[Row]]
    modules: list[str]
    adapters: list[Place]
    threads: int
    attention: str | None


class Measured(NamedTuple):
    """What one worker gives back: its shards' sums with their tokens, and why some modules are not in them."""

    shards: list[tuple[Shard, int]]
    left_out: dict[str, str]


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """``count`` of the rows, or all where there are fewer, evenly spaced."""
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)


def survey(
    places: dict[str, Place],
    rows: Sequence[Row],
    inputs: Inputs,
    threads: int,
    parallel_map: ParallelMap,
    slots: int,
    progress: Any,
    attention: str | None = None,
) -> dict[str, Any]:
    """The ``activations`` part of the results: rows, what ``summarise_activations`` tells, and chance: the root mean
    square of the cosine of two random deltas on the first adapter's A.

    ``left_out`` are the modules whose inputs a pass over the base does not give, each with why. Where there are any,
    each pair has ``plain`` beside its cosine, the plain one of the modules that remain, and ``plain_chance`` is its.
    """
    modules = shared(list(places.values()), inputs)
    rows = [row for row in rows if row[1]]
    if not rows:
        raise ValueError("no row with a completion: there is nothing to measure the updates on")
    shards = [list(rows[i : i + ROWS_A_SHARD]) for i in range(0, len(rows), ROWS_A_SHARD)]
    workers = min(slots, len(shards))
    tasks = [Task(shards[i::workers], modules, list(places.values()), threads, attention) for i in range(workers)]
    progress(f"{len(places)} adapters at {len(modules)} modules on {len(rows)} rows")
    dealt = parallel_map(measure, tasks)
    # Back into the order of the rows, whoever measured them.
    parts = [dealt[i % workers].shards[i // workers] for i in range(len(shards))]
    why = {module: reason for found in dealt for module, reason in found.left_out.items()}
    left = {m: why.get(m, "not reached by every token") for m in modules if any(m not in sums for sums, _ in parts)}
    modules = [module for module in modules if module not in left]
    left_out = [{"module": module, "why": reason} for module, reason in left.items()]
    if not modules:
        raise Unweighed(f"no module's inputs are those of every token: {formats.left_out(left_out)}")
    tokens = sum(count for _, count in parts)
    grams = {module: _mean([sums[module][0] for sums, _ in parts], tokens) for module in modules}
    first = AdapterFile(next(iter(places.values())).path(inputs))
    given_a = [
        (*first.shape(module), torch.tensor(_mean([sums[module][1] for sums, _ in parts], tokens), dtype=torch.float64))
        for module in modules
    ]
    found = summarise_activations(list(places), grams, tokens)
    found |= {"rows": len(rows), "modules": len(modules), "chance": expected_cosines(given_a)["shared_a"]}
    if left_out:
        _tell_plain(found, places, inputs, modules)
    return found | {"left_out": left_out}


class Unweighed(ValueError):
    """No module can be weighed by its inputs: nothing is wrong with the adapters or the base."""


def _tell_plain(found: dict[str, Any], places: dict[str, Place], inputs: Inputs, modules: Sequence[str]) -> None:
    """Adds the plain cosine of the same modules to each pair: S = 1 in place of the inputs' second moment."""
    files = [AdapterFile(place.path(inputs)) for place in places.values()]
    grams, given_a = {}, []
    for module in modules:
        held = [file.factors(module) for file in files]
        stacked = torch.cat([factors.a for factors in held])
        grams[module] = weighted_gram(stacked @ stacked.T, held)
        given_a.append((*files[0].shape(module), held[0].a @ held[0].a.T))
    plain = summarise_activations(list(places), grams, found["tokens"])["pairs"]
    for weighted, entry in zip(found["pairs"], plain, strict=True):
        weighted["plain"] = entry["cosine"]
    found["plain_chance"] = expected_cosines(given_a)["shared_a"]


def _mean(sums: Sequence[Matrix], tokens: int) -> Matrix:
    """Of matrices that were summed over tokens, part by part."""
    return [[math.fsum(values) / tokens for values in zip(*lines, strict=True)] for lines in zip(*sums, strict=True)]


def measure(task: Task, inputs: Inputs) -> Measured:
    """Each shard's sums over its tokens, how many these are, and the modules at which no delta can be attached."""
    pin(task.threads)
    model = load(model_folder(inputs["base"]), "float32", task.attention, device())
    why = {module: unattachable(model, module) for module in task.modules}
    modules = [module for module in task.modules if why[module] is None]
    files = [AdapterFile(place.path(inputs)) for place in task.adapters]
    adapters = [{module: file.factors(module) for module in modules} for file in files]
    shards = [_shard(model, rows, adapters, modules) for rows in task.shards]
    return Measured(shards, {module: reason for module, reason in why.items() if reason is not None})


def _shard(model: Any, rows: Sequence[Row], adapters: list, modules: Sequence[str]) -> tuple[Shard, int]:
    sums: Shard = {}
    tokens = 0
    for some in _chunks(modules):
        products, tokens = input_products(model, rows, adapters, some, BATCH)
        for module in products:
            held = [factors[module] for factors in adapters]
            rank = len(held[0].a)
            gram = torch.tensor(weighted_gram(products[module], held), dtype=torch.float64)
            sums[module] = ((gram * tokens).tolist(), (products[module][:rank, :rank] * tokens).tolist())
    return sums, tokens


def _chunks(modules: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(modules), MODULES_A_PASS):
        yield modules[start : start + MODULES_A_PASS]
