"""Actors that keep an engine open, and the steps that wait for one; without a cluster.

An actor holds as many GPUs as its engine spans, all on one node since they are one process's. A step is given to an
idle actor of as many GPUs, if possible one that has the step's own engine open: loading a large model takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from execution.step import Step


class Idle(NamedTuple):
    """An actor without work, the GPUs that it holds, and its last step."""

    actor: Any
    gpus: float
    last: Step | None = None


@dataclass
class EnginePool:
    """``start(gpus)`` makes an actor, ``end(actor)`` kills one. ``counted``: whether engines hold GPUs."""

    start: Callable[[float], Any]
    end: Callable[[Any], None]
    counted: bool
    waiting: list[Step] = field(default_factory=list)  # in the order in which they are placed
    idle: list[Idle] = field(default_factory=list)

    def next(self, new: bool) -> tuple[Step, Any, float] | None:
        """Where engines hold no GPU: the first step and an actor for it, idle or with ``new`` a new one; its GPUs."""
        if not self.waiting or not (new or self.idle):
            return None
        return (step := self.waiting[0]), *self.take(step)

    def take(self, step: Step) -> tuple[Any, float]:
        """An actor for one of the waiting steps, idle or new, and its GPUs."""
        gpus = self.gpus_of(step)
        fitting = sorted((a for a in self.idle if a.gpus == gpus), key=lambda a: not _one(a, step))
        if fitting:
            self.idle.remove(fitting[0])
        self.waiting.remove(step)
        return fitting[0].actor if fitting else self.start(gpus), gpus

    def end_idle(self) -> None:
        """Kill the actors without work: each holds its GPUs."""
        for idle in self.idle:
            self.end(idle.actor)
        self.idle.clear()

    def too_large(self, largest: int) -> list[tuple[Step, str]]:
        """Remove the steps whose engine no node holds, the ``largest`` of which has so many GPUs; says why of each."""
        lost = [step for step in self.waiting if self.gpus_of(step) > max(1, largest)]
        self.waiting = [step for step in self.waiting if step not in lost]
        why = "its engine spans {} GPUs of one node, and the cluster's largest has {} now"
        return [(step, why.format(self.gpus_of(step), largest)) for step in lost]

    def gpus_of(self, step: Step) -> int:
        """GPUs that its engine spans; none where they are not counted."""
        return int(step.config["engine"].get("tensor_parallel", 1)) if self.counted else 0


def opened_for(step: Step) -> tuple[Any, ...]:
    """What decides which engine a step opens: settings, placement, model."""
    model = step.inputs.get("model") or step.inputs.get("base")
    return step.config.get("engine"), step.runtime.get("engine"), model and model.key


def _one(idle: Idle, step: Step) -> bool:
    """Whether an idle actor has the step's engine open."""
    return idle.last is not None and opened_for(idle.last) == opened_for(step)
