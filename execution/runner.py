"""Runs a plan, a graph of steps: gives ready steps to an executor and records what comes back, with a line each.

A step is ready when all of its inputs are done. A failed step blocks the steps that read it; collective steps run
without the failed inputs. The executor decides where steps run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from execution.context import NoResources, Resources
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
        return [(step, attempt(step, self.store, self.resources))]

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
        self.position = {step.title: i for i, step in enumerate(plan)}
        self.waiting = list(plan)
        self.running: dict[str, Step] = {}
        self.outcome = Outcome()

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
        executor.start(ready, self.waiting)

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
        return self._ended()

    def _advance(self) -> list[Step]:
        """Steps that can run now, of the plan as far as it is known."""
        ready = self._ready()
        if self.more is not None and (plan := self.more(self._settled())) is not None:
            self.more = None
            known = self._settled() | self.running.keys() | {step.title for step in self.waiting}
            self.position = {step.title: i for i, step in enumerate(plan)}
            self.waiting += [step for step in plan if step.title not in known]
            ready += self._ready()
        return ready

    def _settled(self) -> set[str]:
        return {step.title for step in self.outcome.steps} | self.outcome.lost

    def _ready(self) -> list[Step]:
        """One pass over the waiting steps in plan order: record those done or blocked, return those that can run."""
        ready = []
        for planned in list(self.waiting):
            step = self._resolve(planned)
            if step is None:
                continue
            self.waiting.remove(planned)
            if step.title in self.outcome.blocked:
                continue
            if self._have(step):
                self.outcome.cached.add(step.title)
                self.outcome.steps.append(step)
            else:
                ready.append(step)
                self.running[step.title] = step
        return ready

    def _resolve(self, step: Step) -> Step | None:
        """The step as it can run now, without failed inputs if collective; None while it waits. May mark it blocked."""
        lost = {s.title for s in step.inputs.values()} & self.outcome.lost
        settled = self._settled()
        if any(s.title not in settled for s in step.inputs.values()):
            return None
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

    def _heartbeat(self) -> None:
        for step in self.running.values():
            line = self.store.progress(step)
            if line:
                self.progress(f"{step.title}: {line}")
