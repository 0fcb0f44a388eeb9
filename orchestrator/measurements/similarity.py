"""CKA between models, of the hidden states at every layer and of every adapted projection's output."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from analysis.function.cka import linear_ckas, similarities
from analysis.weights.modules import places
from execution.context import Context, Inputs
from execution.store import write_json
from orchestrator.measurements.grams import measured_at, read_grams
from orchestrator.runtime.threads import pin
from orchestrator.steps.features import FEATURES
from orchestrator.steps.similarity import FILE
from orchestrator.steps.train import BASE


class Task(NamedTuple):
    """One worker's task: layers (by number, 0 the embeddings) and modules at which it compares pairs of models."""

    places: list[int | str]
    roles: list[str]  # of the models' features
    pairs: list[tuple[int, int]]  # by their places among roles
    groups: int
    seed: int


def measure_similarity(context: Context) -> None:
    """Write ``similarity.json``: debiased CKA per pair and layer (interval, shuffled control), per pair and module."""
    config, inputs = context.config, context.inputs
    names = {role: role.removeprefix(FEATURES) for role in inputs}
    at = measured_at(inputs[BASE])
    prompts = len(read_grams(inputs[BASE], at[:1])[0])
    pairs = listed(list(names.values()), config.get("beside"))
    context.progress(f"{len(pairs)} pairs at {len(at)} layers and modules")
    workers = min(context.slots, len(at))
    tasks = [Task(at[i::workers], list(names), pairs, config["groups"], config["seed"]) for i in range(workers)]
    compared = {place: rows for part in context.parallel_map(compare, tasks) for place, rows in part}
    layers = [place for place in at if isinstance(place, int)]
    modules = [place for place in at if isinstance(place, str)]
    where = places(modules)
    hidden, projections = [], []
    called = list(names.values())
    for i, (a, b) in enumerate(pairs):
        ends = {"a": called[a], "b": called[b]}
        # Transformers' state 0 is the embeddings', state l + 1 that after layer l; our layers count from 0
        hidden += [{**ends, "layer": layer - 1, **compared[layer][i]} for layer in layers]
        projections += [{**ends, "module": module, **where[module], **compared[module][i]} for module in modules]
    write_json(
        context.out / FILE,
        {
            "estimator": "debiased linear CKA",
            "position": config["position"],
            "prompts": prompts,
            "hidden": hidden,
            "modules": projections,
        },
    )


def listed(names: Sequence[str], beside: str | None) -> list[tuple[int, int]]:
    """The pairs that are compared, by places: all, or those of base or of ``beside``."""
    pairs = list(itertools.combinations(range(len(names)), 2))
    return pairs if beside is None else [(i, j) for i, j in pairs if {names[i], names[j]} & {BASE, beside}]


def compare(task: Task, inputs: Inputs) -> list[tuple[int | str, list[dict[str, Any]]]]:
    """CKA of the pairs of models at each of the task's layers and modules, which are read once.

    Controls are drawn per layer from the seed, independent of the partition, and the same for every pair.
    """
    pin(1)
    found: list[tuple[int | str, list[dict[str, Any]]]] = []
    for place in task.places:
        grams = [read_grams(inputs[role], [place])[0] for role in task.roles]
        if isinstance(place, int):
            generator = torch.Generator().manual_seed(task.seed + place)
            rows: list[dict[str, Any]] = [*similarities(grams, task.pairs, generator, task.groups)]
        else:
            rows = [{"cka": value} for value in linear_ckas(grams, task.pairs)]
        found.append((place, rows))
    return found
