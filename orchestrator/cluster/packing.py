"""How ready trainings are dealt out to jobs: the longest first, the sweep through one Tune job, small cells in queues.

Pure: it knows steps and numbers, no cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from execution.step import Step
from methods import METHODS


@dataclass(frozen=True)
class TrainingJob:
    """One job: its trainings in their order, and how many of them at once (more than one for a sweep alone)."""

    steps: list[Step]
    sweep: bool = False
    at_once: int = 1


def pack(trainings: Sequence[Step], slots: int, queues: bool, lengths: Mapping[str, float]) -> list[TrainingJob]:
    """Jobs for the trainings, the longest first; ``lengths`` by title, in any unit.

    The sweep's further rates are one Tune job, which takes at most half of the slots where there is other work. With
    ``queues`` (on CPUs, where a job's start-up costs as much as a small cell) the swept method's own cell joins it,
    and the rest is dealt into one queue a slot, each cell to the queue that ends first; the queues of the sweep's
    slots come last, to be placed when it has ended. Without, each training is a job.
    """
    ordered = sorted(trainings, key=lambda step: -lengths.get(step.title, 0.0))  # stable: the plan's order in ties
    sweep = [step for step in ordered if step.role == "sweep"]
    if queues and sweep:
        sweep += [step for step in ordered if step.role == "method" and _same_but_rate(step, sweep[0])]
    rest = [step for step in ordered if step not in sweep]
    at_once = min(len(sweep), max(1, slots // 2 if rest else slots))
    jobs = [TrainingJob(sweep, True, at_once)] if sweep else []
    if not queues:
        return jobs + [TrainingJob([step]) for step in rest]
    taken = sum(lengths.get(step.title, 1.0) for step in sweep) / max(1, at_once)
    loads = [0.0] * (slots - at_once) + [taken] * at_once
    return jobs + [TrainingJob(queue) for queue in deal(rest, loads, lengths) if queue]


def deal(steps: Sequence[Step], loads: Sequence[float], lengths: Mapping[str, float]) -> list[list[Step]]:
    """A queue for each of ``loads``, what its slot has before it: each step in turn to the one that ends first.

    With the longest step first and no loads this is Graham's rule (1969, bound 4/3 - 1/(3 queues)).
    """
    ends = list(loads)
    found: list[list[Step]] = [[] for _ in ends]
    for step in steps:
        place = ends.index(min(ends))
        found[place].append(step)
        ends[place] += lengths.get(step.title, 1.0)
    return found


def _same_but_rate(step: Step, other: Step) -> bool:
    """Whether two trainings differ in nothing but the learning rate."""

    def rest(s: Step) -> dict[str, Any]:
        return {k: v for k, v in s.config.items() if k != "learning_rate"}

    return rest(step) == rest(other)


def length(step: Step) -> float:
    """A training's length in forward passes of rows, where nothing better is known: pairs are two rows a unit."""
    rows = 2 if METHODS[step.config["method"]].view == "pairs" else 1
    return float(step.config["run_steps"] * step.config["batch_size"] * rows)
