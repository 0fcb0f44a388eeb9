"""Losses on held-out rows at every model, and on the straight path between pairs of models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from analysis.function.connectivity import barrier, between, token_mean
from analysis.function.forward import attached, completion_hidden, completion_nll, completion_scores
from execution.context import Context, Inputs
from execution.store import write_json
from models.adapter import Factors, load_factors
from models.base import load
from models.head import check
from models.logprobs import Row
from orchestrator.rollouts.dataset import read_table
from orchestrator.runtime.device import device
from orchestrator.runtime.threads import pin
from orchestrator.steps.base import model_folder
from orchestrator.steps.connectivity import FILE
from orchestrator.steps.train import adapters as adapters_of

BATCH = 8


class Task(NamedTuple):
    """One worker's task: held-out rows, and the models and points to measure."""

    right: list[Row]
    wrong: list[Row]
    names: list[str]
    points: list[tuple[str, str, float]]
    threads: int
    attention: str


def measure_paths(context: Context) -> None:
    """Write ``connectivity.json``: ``losses`` (nll of right and wrong rows, KL to base) and ``paths``."""
    config, adapters = context.config, adapters_of(context.inputs)
    held = read_table(context.inputs["rollouts"], "heldout")
    rows = {
        right: [(r["prompt_ids"], r["completion_ids"]) for r in held if (r["reward"] > 0) == right][: config["rows"]]
        for right in (True, False)
    }
    weights = [i / (config["points"] - 1) for i in range(config["points"])]
    pairs = [(a, b) for a, b in config["pairs"] if {a, b} <= adapters.keys() | {"base"}]
    pairs = pairs if rows[True] else []  # a path is measured on right rows
    names = ["base", *adapters]
    points = [(a, b, w) for a, b in pairs for w in weights[1:-1]]
    n = context.slots
    tasks = [
        Task(rows[True], rows[False], names[i::n], points[i::n], config["threads"], config["attention"])
        for i in range(n)
    ]
    context.progress(f"{len(names)} models, {len(points)} points between them")
    parts = context.parallel_map(measure, [t for t in tasks if t.names or t.points])
    losses = {name: entry for part in parts for name, entry in part["losses"].items()}
    between_ends = {tuple(p): loss for part in parts for p, loss in part["points"]}
    paths = []
    for a, b in pairs:
        path = [
            losses[b]["nll_right"],
            *(between_ends[(a, b, w)] for w in weights[1:-1]),
            losses[a]["nll_right"],
        ]
        paths.append(
            {
                "a": a,
                "b": b,
                "weights": weights,
                "loss": path,
                "barrier": None if None in path else barrier(weights, path),
            }
        )
    write_json(
        context.out / FILE,
        {
            "losses": [{"name": name, **losses[name]} for name in names],
            "connectivity": {
                "loss": "nats a token of right held-out completions",
                "rows": len(rows[True]),
                "paths": paths,
            },
        },
    )


def measure(task: Task, inputs: Inputs) -> dict[str, Any]:
    """Losses of the task's models and points."""
    pin(task.threads)
    model = load(model_folder(inputs["base"]), "float32", task.attention, device())
    adapters = adapters_of(inputs)
    factors = {name: _factors(adapters, name) for name in _wanted(task)}
    rows = [*task.right, *task.wrong]
    for prompt, completion in rows[:1]:
        check(model, [*prompt, *completion])
    reference = completion_hidden(model, rows, BATCH)
    losses = {}
    for name in task.names:
        with attached(model, factors[name]):
            scores = completion_scores(model, rows, BATCH, reference)
        right, wrong = scores[: len(task.right)], scores[len(task.right) :]
        tokens = sum(s.tokens for s in scores)
        losses[name] = {
            "nll_right": _mean([(s.nll, s.tokens) for s in right]),
            "nll_wrong": _mean([(s.nll, s.tokens) for s in wrong]),
            "kl_to_base": _finite(sum(s.kl or 0.0 for s in scores) / tokens),
        }
    points = []
    for a, b, weight in task.points:
        with attached(model, between(factors[a], factors[b], weight)):
            points.append(((a, b, weight), _mean(completion_nll(model, task.right, BATCH))))
    return {"losses": losses, "points": points}


def _wanted(task: Task) -> set[str]:
    return {*task.names, *(name for a, b, _ in task.points for name in (a, b))}


def _factors(adapters: Mapping[str, Path], name: str) -> dict[str, Factors]:
    """An adapter's factors in float32; the base is the empty delta."""
    return {} if name == "base" else load_factors(adapters[name], dtype=torch.float32)


def _mean(scores: Sequence[tuple[float, int]]) -> float | None:
    return _finite(token_mean(scores)) if scores else None


def _finite(value: float) -> float | None:
    """None if not finite, so that one diverged adapter does not fail the step."""
    return value if math.isfinite(value) else None
