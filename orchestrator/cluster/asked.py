"""Steps that a running search asks for: how they get from its trials to the driver, which places them, and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from execution.context import StepFailed
from execution.errors import ClusterLost
from execution.step import Step
from execution.store import Store
from orchestrator.cluster.connection import on_node

POLL = 0.3  # seconds between two questions of a trial whether its step has ended


class Asked:
    """Between trials and driver: steps that were asked for, and how steps ended (None: done). One title, one step."""

    def __init__(self) -> None:
        self._new: dict[str, Step] = {}
        self._ended: dict[str, tuple[str | None]] = {}

    def ask(self, step: Step) -> None:
        if step.title not in self._ended:
            self._new.setdefault(step.title, step)

    def take(self) -> list[Step]:
        """The steps that were asked for since the last call."""
        steps, self._new = list(self._new.values()), {}
        return steps

    def end(self, title: str, error: str | None) -> None:
        self._ended[title] = (error,)

    def ended(self, title: str) -> tuple[str | None] | None:
        """The step's error in a tuple; None while it has not ended."""
        return self._ended.get(title)


AskedActor = ray.remote(num_cpus=0, max_restarts=0)(Asked)


@dataclass(frozen=True)
class Ask:
    """``ask`` of a search on a cluster: has the driver place the step, and waits for it. Holds nothing meanwhile."""

    store: Store
    asked: Any  # the actor

    def __call__(self, step: Step) -> Path:
        if not self.store.intact(step):
            ray.get(self.asked.ask.remote(step))
            while (ended := ray.get(self.asked.ended.remote(step.title))) is None:
                time.sleep(max(POLL, self.store.storage.pace))
            if ended[0] is not None:
                raise StepFailed(ended[0])
        return self.store.folder(step)


class Requests:
    """The driver's side: which steps are asked for and not of the plan, and what the trials are told."""

    def __init__(self, store: Store, progress: Callable[[str], None], home: str) -> None:
        self.store, self.progress, self.home = store, progress, home
        self.actor: Any = None
        self.own: dict[str, Step] = {}  # asked for, not of the plan, by title
        self.live: set[str] = set()  # of the plan, and running
        self.ended: dict[str, str | None] = {}

    def open(self) -> Any:
        """The actor, for a search that starts."""
        if self.actor is None:
            self.actor = AskedActor.options(scheduling_strategy=on_node(self.home)).remote()
            for title, error in self.ended.items():
                self.actor.end.remote(title, error)
        return self.actor

    def new(self) -> list[Step]:
        """Steps to place: asked for, and neither done nor on their way. ``ClusterLost`` if the actor has died."""
        steps = []
        try:
            taken = ray.get(self.actor.take.remote()) if self.actor is not None else ()
        except RayActorError:
            raise ClusterLost("the process that passes on what searches ask for has died") from None
        for step in taken:
            if step.title in self.own or step.title in self.live:
                continue
            if self.store.intact(step):
                self._end(step.title, None)
                continue
            self.store.clear_failure(step)  # of an earlier run
            self.store.clear_progress(step)
            self.store.discard(step)
            self.own[step.title] = step
            steps.append(step)
        return steps

    def settle(self, results: Sequence[tuple[Step, str | None]]) -> list[tuple[Step, str | None]]:
        """Tell the trials what has ended; returns the results of the plan's own steps."""
        for step, error in results:
            self._end(step.title, error)
            if step.title in self.own:
                self.progress(f"{step.title}: {'done' if error is None else f'FAILED: {error}'}")
        kept = [(step, error) for step, error in results if step.title not in self.own]
        ended = {step.title for step, _ in results}
        self.own = {title: step for title, step in self.own.items() if title not in ended}
        self.live -= ended
        return kept

    def _end(self, title: str, error: str | None) -> None:
        self.ended[title] = error
        if self.actor is not None:
            self.actor.end.remote(title, error)


def trained_by(steps: Collection[Step]) -> list[Step]:
    """The trainings among the steps, and for each search one for each of its trials."""
    from orchestrator.steps.trials.search import trials

    trainings = [step for step in steps if step.runs_as == "training"]
    for step in steps:
        if step.runs_as == "search":
            trainings += [step.runtime["train"]] * trials(step.config)
    return trainings
