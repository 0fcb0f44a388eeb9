"""Activation-weighted geometry: updates compared by their effect on their modules' inputs on the base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from analysis.function.activations import (
    every_input,
    gram_of_moment,
    input_moments,
    input_products,
    random_rows,
    summarise_activations,
    weighted_gram,
)
from analysis.function.forward import unattachable
from analysis.weights.chance import expected_cosine_of_shared_b, expected_cosines
from execution.context import Inputs, ParallelMap
from models.adapter import AdapterFile, Factors, Start
from models.base import load
from models.logprobs import Row
from orchestrator.measurements.geometry import Place, shared
from orchestrator.measurements.listed import ALL, Listed
from orchestrator.runtime.device import device
from orchestrator.runtime.threads import pin
from orchestrator.steps.activations import MODULES_A_PASS, ROWS_A_SHARD
from orchestrator.steps.base import model_folder
from report import formats

BATCH = 8
RANDOM_ROWS = 64  # for the moments of a module's inputs: 1/8 of an error at a module, and there are many modules

Matrix = list[list[float]]
# module -> M x M and the first adapter's r x r a S a.T, summed over tokens; with start b the products of random rows
Shard = dict[str, tuple[Matrix, Matrix]]


class Task(NamedTuple):
    """One worker's task: shards of rows, the adapters, the factor that the first of them drew, and whether there are so
    many that the inputs' second moment is smaller than their products."""

    shards: list[list[Row]]
    modules: list[str]
    adapters: list[Place]
    threads: int
    attention: str | None
    start: Start
    many: bool


class Measured(NamedTuple):
    """One worker's result: sums and token counts of its shards, and the reason for each module that is left out."""

    shards: list[tuple[Shard, int]]
    left_out: dict[str, str]


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """``count`` evenly spaced rows, or all if there are fewer."""
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
    start: Start = "a",
    pairs: Listed = ALL,
) -> dict[str, Any]:
    """The ``activations`` part of the results: rows, the keys of ``summarise_activations``, and chance: the root mean
    square of the cosine of two random deltas on the first adapter's A, or, where ``start`` says that it drew B, on its
    B.

    ``left_out`` lists the modules whose inputs a pass over the base does not give, with reasons. If there are any, each
    pair also has ``plain``, the unweighted cosine over the remaining modules, with its ``plain_chance``.
    """
    modules = shared(list(places.values()), inputs)
    rows = [row for row in rows if row[1]]
    if not rows:
        raise ValueError("no row with a completion: there is nothing to measure the updates on")
    shards = [list(rows[i : i + ROWS_A_SHARD]) for i in range(0, len(rows), ROWS_A_SHARD)]
    workers = min(slots, len(shards))
    tasks = [
        Task(shards[i::workers], modules, list(places.values()), threads, attention, start, pairs.pairs is not None)
        for i in range(workers)
    ]
    progress(f"{len(places)} adapters at {len(modules)} modules on {len(rows)} rows")
    dealt = parallel_map(measure, tasks)
    # In the order of the rows, independent of the number of workers.
    parts = [dealt[i % workers].shards[i // workers] for i in range(len(shards))]
    why = {module: reason for part in dealt for module, reason in part.left_out.items()}
    left = {m: why.get(m, "not reached by every token") for m in modules if any(m not in sums for sums, _ in parts)}
    modules = [module for module in modules if module not in left]
    left_out = [{"module": module, "why": reason} for module, reason in left.items()]
    if not modules:
        raise Unweighed(f"no module's inputs are those of every token: {formats.left_out(left_out)}")
    tokens = sum(count for _, count in parts)
    grams = {module: _mean([sums[module][0] for sums, _ in parts], tokens) for module in modules}
    first = AdapterFile(next(iter(places.values())).path(inputs))
    given = {
        module: torch.tensor(_mean([sums[module][1] for sums, _ in parts], tokens), dtype=torch.float64)
        for module in modules
    }
    if start == "a":
        chance = expected_cosines([(*first.shape(module), of) for module, of in given.items()])["shared_a"]
    else:
        chance = expected_cosine_of_shared_b([(_b_gram(first, m), *input_moments(of)) for m, of in given.items()])
    overall, in_detail = (None if some is None else some.tolist() for some in (pairs.pairs, pairs.detailed))
    result = summarise_activations(list(places), grams, tokens, overall, in_detail)
    result |= {"rows": len(rows), "modules": len(modules), "chance": chance}
    if left_out:
        _add_plain(result, places, inputs, modules, start, overall)
    return result | {"left_out": left_out}


def _b_gram(file: AdapterFile, module: str) -> torch.Tensor:
    """B.T B, r x r."""
    b = file.factors(module).b
    return b.T @ b


class Unweighed(ValueError):
    """No module can be weighted by its inputs; adapters and base are valid."""


def _add_plain(
    result: dict[str, Any],
    places: dict[str, Place],
    inputs: Inputs,
    modules: Sequence[str],
    start: Start,
    pairs: Sequence[tuple[int, int]] | None,
) -> None:
    """Add the unweighted cosine over the same modules to each pair: S = 1 instead of the inputs' second moment."""
    files = [AdapterFile(place.path(inputs)) for place in places.values()]
    grams, given_a = {}, []
    for module in modules:
        held = [file.factors(module) for file in files]
        if pairs is None:
            stacked = torch.cat([factors.a for factors in held])
            grams[module] = weighted_gram(stacked @ stacked.T, held)
        else:
            grams[module] = gram_of_moment(torch.eye(held[0].a.shape[1]), held)
        given_a.append((*files[0].shape(module), held[0].a @ held[0].a.T))
    plain = summarise_activations(list(places), grams, result["tokens"], pairs, [])["pairs"]
    for weighted, entry in zip(result["pairs"], plain, strict=True):
        weighted["plain"] = entry["cosine"]
    result["plain_chance"] = expected_cosines(given_a)["shared_a"]
    if start == "b":  # S = 1 has the trace of the input's width, and so has its square
        widths = [(module, files[0].shape(module)[1]) for module in modules]
        result["plain_chance"] = expected_cosine_of_shared_b([(_b_gram(files[0], m), w, w) for m, w in widths])


def _mean(sums: Sequence[Matrix], tokens: int) -> Matrix:
    """Mean over tokens of matrices given as partial sums."""
    return [[math.fsum(values) / tokens for values in zip(*lines, strict=True)] for lines in zip(*sums, strict=True)]


def measure(task: Task, inputs: Inputs) -> Measured:
    """Each shard's sums over its tokens with their number, and the modules at which no delta can be attached."""
    pin(task.threads)
    model = load(model_folder(inputs["base"]), "float32", task.attention, device())
    why = {module: unattachable(model, module) for module in task.modules}
    modules = [module for module in task.modules if why[module] is None]
    files = [AdapterFile(place.path(inputs)) for place in task.adapters]
    adapters = [{module: file.factors(module) for module in modules} for file in files]
    extra: list[dict[str, Factors]] = []
    if task.start == "b":
        drawn = [random_rows(adapters[0][module], RANDOM_ROWS, seed) for seed, module in enumerate(modules)]
        extra = [dict(zip(modules, one, strict=True)) for one in zip(*drawn, strict=True)]
    shards = [_shard(model, rows, adapters, extra, modules, task.many) for rows in task.shards]
    return Measured(shards, {module: reason for module, reason in why.items() if reason is not None})


def _shard(
    model: Any, rows: Sequence[Row], adapters: list, extra: list, modules: Sequence[str], many: bool
) -> tuple[Shard, int]:
    sums: Shard = {}
    tokens = 0
    for some in _chunks(modules):
        asked = [{module: every_input(adapters[0][module]) for module in some}] if many else [*adapters, *extra]
        products, tokens = input_products(model, rows, asked, some, BATCH)
        for module in products:
            held = [factors[module] for factors in adapters]
            rank, whole, found = len(held[0].a), sum(len(factors.a) for factors in held), products[module]
            if many:
                given = torch.cat([factors[module].a for factors in extra]) if extra else held[0].a
                gram = torch.tensor(gram_of_moment(found, held), dtype=torch.float64)
                for_chance = given @ found @ given.T
            else:
                gram = torch.tensor(weighted_gram(found[:whole, :whole], held), dtype=torch.float64)
                for_chance = found[whole:, whole:] if extra else found[:rank, :rank]
            sums[module] = ((gram * tokens).tolist(), (for_chance * tokens).tolist())
    return sums, tokens


def _chunks(modules: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(modules), MODULES_A_PASS):
        yield modules[start : start + MODULES_A_PASS]
