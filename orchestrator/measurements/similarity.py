"""CKA between models, of the hidden states at every layer and of every adapted projection's output."""

from __future__ import annotations

import itertools
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from analysis.function.cka import gram, linear_cka, similarity
from analysis.function.forward import attached, features
from analysis.weights.modules import places
from execution.context import Context, Inputs
from execution.store import write_json
from models.adapter import AdapterFile, load_factors
from models.base import load
from orchestrator.evaluation.problems import read_problems
from orchestrator.runtime.device import device
from orchestrator.runtime.threads import pin
from orchestrator.steps.base import model_folder
from orchestrator.steps.similarity import FILE
from orchestrator.steps.train import adapters as adapters_of

Grams = dict[str, dict[Any, np.ndarray]]  # "hidden" by layer, "modules" by name: n x n, float64


class Task(NamedTuple):
    """One worker's task for the forward passes."""

    prompts: list[list[int]]
    modules: list[str]
    names: list[str]
    position: Literal["last", "mean"]
    threads: int
    attention: str


def measure_similarity(context: Context) -> None:
    """Write ``similarity.json``: debiased CKA per pair and layer (interval, shuffled control), per pair and module."""
    config, adapters = context.config, adapters_of(context.inputs)
    if not adapters:
        raise ValueError("no adapter was trained: similarity has nothing to compare with the base")
    problems = read_problems(context.inputs["problems"])[0]["problems"][: config["prompts"]]
    prompts = [p["prompt_ids"] for p in problems]
    modules = AdapterFile(next(iter(adapters.values()))).modules
    names = ["base", *adapters]
    context.progress(f"{len(names)} models on {len(prompts)} prompts")
    tasks = [
        Task(prompts, modules, names[i :: context.slots], config["position"], config["threads"], config["attention"])
        for i in range(min(context.slots, len(names)))
    ]
    grams = {name: g for part in context.parallel_map(observe, tasks) for name, g in part.items()}
    pairs = list(itertools.combinations(names, 2))
    context.progress(f"{len(pairs)} pairs at {len(modules)} modules")
    shares = [
        ([(a, b, grams[a], grams[b]) for a, b in pairs[i :: context.slots]], config["groups"], config["seed"])
        for i in range(min(context.slots, len(pairs)))
    ]
    compared = {(e[0], e[1]): e[2:] for part in context.parallel_map(compare, shares) for e in part}
    write_json(
        context.out / FILE,
        {
            "estimator": "debiased linear CKA",
            "position": config["position"],
            "prompts": len(prompts),
            "hidden": [entry for pair in pairs for entry in compared[pair][0]],
            "modules": [entry for pair in pairs for entry in compared[pair][1]],
        },
    )


def observe(task: Task, inputs: Inputs) -> dict[str, Grams]:
    """The Grams of the task's models' activations, all that CKA needs."""
    pin(task.threads)
    model = load(model_folder(inputs["base"]), "float32", task.attention, device())
    adapters = adapters_of(inputs)
    grams: dict[str, Grams] = {}
    for name in task.names:
        factors = {} if name == "base" else load_factors(adapters[name], dtype=torch.float32)
        with attached(model, factors):
            seen = features(model, task.prompts, task.position, task.modules)
        grams[name] = {kind: {k: gram(x).numpy() for k, x in by.items()} for kind, by in seen.items()}
    return grams


def compare(
    share: tuple[list[tuple[str, str, Grams, Grams]], int, int], inputs: Inputs
) -> list[tuple[str, str, list, list]]:
    """CKA of the task's pairs of models. Controls are drawn per layer from the seed, independent of the partition."""
    pairs, groups, seed = share
    pin(1)
    result = []
    for a, b, first, second in pairs:
        hidden, modules = [], []
        for layer in first["hidden"]:
            generator = torch.Generator().manual_seed(seed + layer)
            x, y = (torch.tensor(g["hidden"][layer]) for g in (first, second))
            # Transformers' state 0 is the embeddings', state l + 1 that after layer l; our layers count from 0
            hidden.append({"a": a, "b": b, "layer": layer - 1, **similarity(x, y, generator, groups)})
        where = places(first["modules"])
        for name in first["modules"]:
            x, y = (torch.tensor(g["modules"][name]) for g in (first, second))
            modules.append({"a": a, "b": b, "module": name, **where[name], "cka": linear_cka(x, y)})
        result.append((a, b, hidden, modules))
    return result
