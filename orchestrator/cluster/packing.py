"""Which ready training goes where: jobs on GPUs, a queue for the trainer processes of CPUs; the longest first.

Pure: it knows steps and numbers, no cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from execution.step import Step
from methods import METHODS


@dataclass(frozen=True)
class TrainingJob:
    """Its trainings in their order, and how many of them at once (more than one for a sweep alone)."""

    steps: list[Step]
    sweep: bool = False
    at_once: int = 1


def pack(trainings: Sequence[Step], slots: int, lengths: Mapping[str, float]) -> list[TrainingJob]:
    """Jobs for the trainings on GPUs, the longest first; ``lengths`` by title, in any unit.

    The sweep's further rates are one Tune job, which takes at most half of the slots where there is other work; each
    other training is a job.
    """
    ordered = sorted(trainings, key=lambda step: -lengths.get(step.title, 0.0))  # stable: the plan's order in ties
    sweep = [step for step in ordered if step.role == "sweep"]
    rest = [step for step in ordered if step.role != "sweep"]
    at_once = min(len(sweep), max(1, slots // 2 if rest else slots))
    return ([TrainingJob(sweep, True, at_once)] if sweep else []) + [TrainingJob([step]) for step in rest]


class TrainingQueue:
    """The trainings that the trainer processes of CPUs take, the longest first, and which of them took which.

    A training can be taken once its inputs are there (``ready``) and it was asked for: by the executor, or, one of the
    sweep, by Ray Tune. ``lengths`` are by title, in any unit.
    """

    def __init__(self, lengths: Mapping[str, float]) -> None:
        self._lengths = dict(lengths)
        self._ready: dict[str, Step] = {}
        self._asked: set[str] = set()
        self._taken: dict[tuple[int, int], list[Step]] = {}
        self._closed = False

    def ready(self, step: Step, asked: bool = True) -> None:
        """The training can begin; ``asked`` is False where Ray Tune has to ask for it."""
        self._ready[step.title] = step
        if asked:
            self._asked.add(step.title)

    def ask(self, title: str) -> None:
        self._asked.add(title)

    def take(self, group: int, trainer: int, number: int) -> tuple[Literal["train", "wait", "end"], Step | None]:
        """What a trainer of the group computes as its ``number``-th training, from 0: the same however often asked.

        ``wait`` where none is there now, ``end`` where none will be.
        """
        taken = self._taken.setdefault((group, trainer), [])
        if number < len(taken):
            return "train", taken[number]
        open_ = [title for title in self._ready if title in self._asked]
        if open_:
            title = max(open_, key=lambda title: self._lengths.get(title, 0.0))  # the first of equal ones
            taken.append(self._ready.pop(title))
            return "train", taken[number]
        return ("end" if self._closed else "wait"), None

    def taken(self, group: int) -> list[Step]:
        """All that the group's trainers ever took."""
        return [step for (owner, _), steps in self._taken.items() if owner == group for step in steps]

    def group_of(self, title: str) -> int:
        """The group that took the training last; 0 where none did."""
        owners = [group for (group, _), taken in self._taken.items() if title in {step.title for step in taken}]
        return owners[-1] if owners else 0

    def close(self) -> None:
        """Nothing more will come: who finds the queue empty ends."""
        self._closed = True


def free_cpus(nodes: Sequence[int], groups: Sequence[int]) -> list[int]:
    """CPUs of each node that no group of trainer processes holds; a group lies on one node, the tightest that fits."""
    free = list(nodes)
    for group in sorted(groups, reverse=True):
        fitting = [i for i, cpus in enumerate(free) if cpus >= group]
        if fitting:
            free[min(fitting, key=free.__getitem__)] -= group
    return free


def length(step: Step) -> float:
    """A training's length in forward passes of rows, where nothing better is known: pairs are two rows a unit."""
    rows = 2 if METHODS[step.config["method"]].view == "pairs" else 1
    return float(step.config["run_steps"] * step.config["batch_size"] * rows)
