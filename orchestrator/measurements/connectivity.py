"""Losses on held-out rows along the straight path between pairs of models."""

from __future__ import annotations

import json
from typing import NamedTuple

from analysis.function.connectivity import barrier, between
from analysis.function.forward import attached, completion_nll
from execution.context import Context, Inputs
from execution.store import write_json
from models.logprobs import Row
from orchestrator.measurements.losses import BATCH, factors_of, heldout_rows, load_checked, mean_loss
from orchestrator.runtime.threads import pin
from orchestrator.steps.connectivity import FILE
from orchestrator.steps.losses import FILE as LOSSES_FILE
from orchestrator.steps.losses import LOSSES
from orchestrator.steps.train import ADAPTER, BASE

Point = tuple[str, str, float]  # a, b, and the share of a


class Task(NamedTuple):
    """One worker's task: right held-out rows, and the points to measure."""

    rows: list[Row]
    points: list[Point]
    threads: int
    attention: str


def measure_paths(context: Context) -> None:
    """Write ``connectivity.json``: the loss and the barrier along each path, ends included.

    A path is measured on right rows, and left out where its ends were not: a training or its losses failed.
    """
    config, inputs = context.config, context.inputs
    rows = heldout_rows(inputs["rollouts"], config["rows"]).right
    ends = _ends(inputs)
    weights = [i / (config["points"] - 1) for i in range(config["points"])]
    pairs = [(a, b) for a, b in config["pairs"] if {a, b} <= ends.keys()] if rows else []
    points = [(a, b, w) for a, b in pairs for w in weights[1:-1]]
    workers = min(context.slots, len(points))
    tasks = [Task(rows, points[i::workers], config["threads"], config["attention"]) for i in range(workers)]
    context.progress(f"{len(points)} points between models")
    found = {point: loss for part in context.parallel_map(measure, tasks) for point, loss in part}
    paths = []
    for a, b in pairs:
        path = [ends[b], *(found[a, b, w] for w in weights[1:-1]), ends[a]]
        height = None if None in path else barrier(weights, path)
        paths.append({"a": a, "b": b, "weights": weights, "loss": path, "barrier": height})
    told = {"loss": "nats a token of right held-out completions", "rows": len(rows), "paths": paths}
    write_json(context.out / FILE, told)


def _ends(inputs: Inputs) -> dict[str, float | None]:
    """The loss on right rows at each model that is there with its losses."""
    found = {}
    for role, folder in inputs.items():
        name = role.removeprefix(LOSSES)
        if role.startswith(LOSSES) and (name == BASE or f"{ADAPTER}{name}" in inputs):
            found[name] = json.loads((folder / LOSSES_FILE).read_text())["nll_right"]
    return found


def measure(task: Task, inputs: Inputs) -> list[tuple[Point, float | None]]:
    """The losses at the task's points."""
    pin(task.threads)
    model = load_checked(inputs, task.attention, task.rows)
    names = {name for a, b, _ in task.points for name in (a, b)}
    factors = {name: factors_of(inputs, f"{ADAPTER}{name}") for name in names}
    found = []
    for a, b, weight in task.points:
        with attached(model, between(factors[a], factors[b], weight)):
            found.append(((a, b, weight), mean_loss(completion_nll(model, task.rows, BATCH))))
    return found
