"""What a job is, and who is next, without a cluster: steps on free GPUs, a queue for trainer processes on CPUs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from execution.step import Step

ROUNDING = 1e-9  # of sums of fractions of a GPU


@dataclass
class Job:
    """Steps given to one Ray task or actor call, and the GPUs (or CPUs) it holds."""

    steps: list[Step]
    ref: Any
    cost: float
    actor: Any = None
    sweep: bool = False
    mark: int = 0  # identifies its placement groups
    begun: float = field(default_factory=time.monotonic)
    entered: bool = False  # whether its first step has begun: the time before is start-up
    failed: bool = False  # whether one of its steps failed with an error
    sharing: bool = False  # whether it maps its items over further tasks
    opened: Step | None = None  # the step that the actor has opened its engine for
    group: int = 0  # number of a group of trainer processes on CPUs, which take their steps from the queue


def fitting(ready: Iterable[Step], gpus: Callable[[Step], float], free: float) -> list[Step]:
    """Of the steps in this order those that fit on ``free`` GPUs together; what does not fit is passed over."""
    found = []
    for step in ready:
        if gpus(step) <= free + ROUNDING:
            free -= gpus(step)
            found.append(step)
    return found


class TrainingQueue:
    """A queue of trainings for trainer processes on CPUs, the longest first, with a record of who took which.

    A training can be taken once its inputs are done (``ready``) and it was requested: by the executor, or for the
    sweep by Ray Tune. The highest of ``ranks`` (by title) is taken first, those without one before: a search waits for
    them.
    """

    def __init__(self, ranks: Mapping[str, float]) -> None:
        self._ranks = dict(ranks)
        self._ready: dict[str, Step] = {}
        self._asked: set[str] = set()
        self._taken: dict[tuple[int, int], list[Step]] = {}
        self._closed = False

    def ready(self, step: Step, asked: bool = True) -> None:
        """The training's inputs are done; ``asked`` is False if Ray Tune has yet to request it."""
        self._ready[step.title] = step
        if asked:
            self._asked.add(step.title)

    def rank(self, ranks: Mapping[str, float]) -> None:
        self._ranks = dict(ranks)

    def ask(self, title: str) -> None:
        self._asked.add(title)

    def take(self, group: int, trainer: int, number: int) -> tuple[Literal["train", "wait", "end"], Step | None]:
        """The ``number``-th training (from 0) of a trainer of the group; idempotent.

        ``wait`` if there is none now, ``end`` if there will be none.
        """
        taken = self._taken.setdefault((group, trainer), [])
        if number < len(taken):
            return "train", taken[number]
        open_ = [title for title in self._ready if title in self._asked]
        if open_:
            title = max(open_, key=lambda title: self._ranks.get(title, math.inf))  # the first of equal ones
            taken.append(self._ready.pop(title))
            return "train", taken[number]
        return ("end" if self._closed else "wait"), None

    def taken(self, group: int) -> list[Step]:
        """All trainings that the group's trainers took."""
        return [step for (owner, _), steps in self._taken.items() if owner == group for step in steps]

    def group_of(self, title: str) -> int:
        """The group that took the training last; 0 if none did."""
        owners = [group for (group, _), taken in self._taken.items() if title in {step.title for step in taken}]
        return owners[-1] if owners else 0

    def close(self) -> None:
        """No more trainings will be added: a trainer that sees the empty queue ends."""
        self._closed = True


def free_cpus(nodes: Sequence[int], groups: Sequence[int]) -> list[int]:
    """CPUs of each node not used by groups of trainer processes; a group is on one node, assumed best fit."""
    free = list(nodes)
    for group in sorted(groups, reverse=True):
        fitting = [i for i, cpus in enumerate(free) if cpus >= group]
        if fitting:
            free[min(fitting, key=free.__getitem__)] -= group
    return free


def reads_files(step: Step) -> bool:
    """Whether the step reads the user's files or API key, which only the driver's machine is sure to have."""
    sources = [s for name in ("sources", "shots") for s in step.runtime.get(name, ()) if s]
    return bool({"path", "package", "key"} & step.runtime.keys()) or any(Path(source).exists() for source in sources)
