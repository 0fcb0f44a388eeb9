"""Runs a plan, a graph of steps: gives ready steps to an executor and records what comes back, with a line each.

A step is ready when all of its inputs are done. A failed step blocks the steps that read it; collective steps run
without the failed inputs. The executor decides where steps run.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from execution.context import NoResources, Resources
from execution.errors import WorkerLost
from execution.execute import attempt
from execution.step import Step
from execution.store import Store

HEARTBEAT = 15.0  # seconds between two lines about what is running
NOT_RUN = "not run yet"


class Executor(Protocol):
    """Runs steps. ``start`` takes ready steps, and the plan's other steps still to come; ``wait`` returns the steps
    that have ended with their errors (None: done), possibly none after a short while."""

    def start(self, steps: Sequence[Step], coming: Sequence[Step]) -> None: ...

    def wait(self) -> list[tuple[Step, str | None]]: ...

    def close(self) -> None: ...


class SerialExecutor:
    """Runs one step after another in this process: for debugging, and the reference for the other executors."""

    def __init__(self, store: Store, resources: Resources | None = None) -> None:
        self.store, self.queue = store, list[Step]()
        self.resources = resources or NoResources()

    def start(self, steps: Sequence[Step], coming: Sequence[Step]) -> None:
        self.queue += steps

    def wait(self) -> list[tuple[Step, str | None]]:
        step = self.queue.pop(0)
        try:
            return [(step, attempt(step, self.store, self.resources))]
        except WorkerLost as error:  # not placed again here: the next run goes on from what the step has kept
            self.store.record_failure(step, str(error))
            return [(step, str(error))]

    def close(self) -> None:
        self.resources.close()


@dataclass
class Outcome:
    """How a run ended: done steps, titles of those already stored (``cached``) and newly made (``made``), errors by
    title, and by title why a blocked step did not run."""

    steps: list[Step] = field(default_factory=list)  # as they ran: collective ones without failed inputs
    cached: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> set[str]:
        return self.failed.keys() | self.blocked.keys()

    def is_lost(self, title: str) -> bool:
        return title in self.failed or title in self.blocked


class DagRunner:
    """One run of a plan against a store. ``check`` is called repeatedly and raises if the run must not continue.

    ``more(settled)`` is for a plan whose end depends on results: given the titles of the steps that have ended it
    returns None until the rest is known, then the whole plan, which replaces ``plan``.
    """

    def __init__(
        self,
        plan: Sequence[Step],
        store: Store,
        progress: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
        more: Callable[[set[str]], Sequence[Step] | None] | None = None,
    ) -> None:
        self.store, self.progress, self.check, self.more = store, progress, check, more
        self.running: dict[str, Step] = {}
        self.outcome = Outcome()
        # A step's end concerns the steps that read it, not all that wait: of these there may be thousands.
        self.readers: dict[str, list[str]] = {}
        self.missing: dict[str, int] = {}  # how many of the steps that it reads have not ended
        self.free: list[int] = []  # a heap: the places in the plan of steps that miss none
        self.waiting: dict[str, Step] = {}
        self._plan(plan)

    def _plan(self, plan: Sequence[Step]) -> None:
        """Take up a plan; its steps that are known already stay as they are."""
        known, ended = self.missing.keys() & {step.title for step in plan}, self._settled()
        self.plan, self.position = list(plan), {step.title: i for i, step in enumerate(plan)}
        for step in plan:
            if step.title in known:
                continue
            read = {other.title for other in step.inputs.values()} - ended
            for title in read:
                self.readers.setdefault(title, []).append(step.title)
            self.missing[step.title], self.waiting[step.title] = len(read), step
        self.free = [self.position[t] for t in self.waiting if not self.missing[t]]
        heapq.heapify(self.free)

    def run(self, open_executor: Callable[[], Executor]) -> Outcome:
        """Run to the end. The executor is opened only if a step has to run."""
        ready = self._advance()
        if not ready:
            return self._ended()
        executor = open_executor()
        last = time.monotonic()
        try:
            self._start(executor, ready)
            while self.running:
                settled = executor.wait()
                self.check()
                for step, error in settled:
                    self._settle(step, error)
                if settled:
                    self._start(executor, self._advance())
                elif time.monotonic() - last > HEARTBEAT:
                    self._heartbeat()
                    last = time.monotonic()
        finally:
            executor.close()
            with contextlib.suppress(OSError):
                for step in self.running.values():  # the run was stopped: their progress is stale
                    self.store.clear_progress(step)
        return self._ended()

    def _ended(self) -> Outcome:
        """The outcome, its steps in the plan's order."""
        self.outcome.steps.sort(key=lambda step: self.position[step.title])
        return self.outcome

    def _start(self, executor: Executor, ready: list[Step]) -> None:
        for step in ready:
            self.store.clear_failure(step)  # of an earlier run
            self.store.clear_progress(step)
            self.store.discard(step)
        executor.start(ready, list(self.waiting.values()))

    def survey(self) -> Outcome:
        """The outcome from the store alone, running nothing: other steps failed when last tried, or were not run."""
        while ready := self._advance():
            for step in ready:
                del self.running[step.title]
                error = self.store.failure(step)
                if error is None:
                    self.outcome.blocked[step.title] = NOT_RUN
                else:
                    self.outcome.failed[step.title] = error
                self._ends(step.title)
        return self._ended()

    def _ends(self, title: str) -> None:
        """A step is done, failed or blocked: steps that read nothing else that has not ended are free."""
        for reader in self.readers.get(title, ()):
            self.missing[reader] -= 1
            if not self.missing[reader]:
                heapq.heappush(self.free, self.position[reader])

    def _advance(self) -> list[Step]:
        """Steps that can run now, of the plan as far as it is known."""
        ready = self._ready()
        if self.more is not None and (plan := self.more(self._settled())) is not None:
            self.more = None
            self._plan(plan)
            ready += self._ready()
        return ready

    def _settled(self) -> set[str]:
        return {step.title for step in self.outcome.steps} | self.outcome.lost

    def _ready(self) -> list[Step]:
        """The free steps in plan order: record those done or blocked, return those that can run."""
        ready = []
        while self.free:
            planned = self.plan[heapq.heappop(self.free)]
            del self.waiting[planned.title]
            step = self._resolve(planned)
            if step.title in self.outcome.blocked:
                self._ends(step.title)
            elif self._have(step):
                self.outcome.cached.add(step.title)
                self.outcome.steps.append(step)
                self._ends(step.title)
            else:
                ready.append(step)
                self.running[step.title] = step
        return ready

    def _resolve(self, step: Step) -> Step:
        """The step as it can run now, without failed inputs if collective. May mark it blocked."""
        lost = {s.title for s in step.inputs.values() if self.outcome.is_lost(s.title)}
        spare = step.spare
        if lost - spare or (spare and spare <= lost):
            lost = lost - spare or lost
            self.outcome.blocked[step.title] = f"needs {', '.join(sorted(lost))}"
            self.progress(f"{step.title}: not run, {self.outcome.blocked[step.title]}")
        return step.without(lost) if lost else step

    def _have(self, step: Step) -> bool:
        damage = self.store.damage(step)
        if damage is not None:
            self.progress(f"{step.title}: {damage} since it was made")
            return False
        return self.store.done(step)

    def _settle(self, step: Step, error: str | None) -> None:
        del self.running[step.title]
        if error is None:
            times = self.store.times(step)
            for line in times.get("lost", ()):
                self.progress(f"{step.title}: {line}")
            self.progress(f"{step.title}: done in {times.get('seconds', 0.0):.1f} s")
            self.outcome.made.add(step.title)
            self.outcome.steps.append(step)
        else:
            self.progress(f"{step.title}: FAILED: {error}")
            self.outcome.failed[step.title] = error
        self._ends(step.title)

    def _heartbeat(self) -> None:
        for step in self.running.values():
            line = self.store.progress(step)
            if line:
                self.progress(f"{step.title}: {line}")
