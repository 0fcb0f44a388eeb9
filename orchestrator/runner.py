"""Walks a plan: hands ready steps to an executor, settles what comes back, and says so in one line each.

A step is ready when all that it reads is done. A failed step blocks what reads it, and nothing else: collective
steps go on without the failed adapters. The runner knows nothing of Ray; executors do the placing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.device import device
from orchestrator.perform import Engines, explain, perform
from orchestrator.plan import Step
from orchestrator.store import Store

HEARTBEAT = 15.0  # seconds between two lines about what is running
NOT_RUN = "not run yet"


class Executor(Protocol):
    """Runs steps. ``start`` takes steps that are ready; ``wait`` returns when some have settled, or soon anyway."""

    def start(self, steps: Sequence[Step], coming: Sequence[Step]) -> None: ...

    def wait(self) -> list[tuple[Step, str | None]]: ...

    def close(self) -> None: ...


class Serial:
    """One step after another in this process: the debugger's path and the reference for all others."""

    def __init__(self, store: Store) -> None:
        self.store, self.queue, self.engines = store, list[Step](), Engines()

    def start(self, steps: Sequence[Step], coming: Sequence[Step]) -> None:
        self.queue += steps

    def wait(self) -> list[tuple[Step, str | None]]:
        step = self.queue.pop(0)
        if device() == "cuda" and "engine" not in step.config:
            self.engines.close()  # an engine takes most of a GPU's memory
        return [(step, attempt(step, self.store, self.engines))]

    def close(self) -> None:
        self.engines.close()


def attempt(step: Step, store: Store, engines: Engines, **how: object) -> str | None:
    """Perform the step; a failure is recorded in the store and returned as its one line."""
    try:
        perform(step, store, engines, **how)  # type: ignore[arg-type]
    except Exception as error:  # any error of a step is that step's result, and must not take others down
        line = explain(error).replace(str(store.place), "the run's folder")
        if "engine" in step.config:
            with contextlib.suppress(Exception):  # whatever state the error left it in: the next step opens another
                engines.close()
        store.record_failure(step, line)
        return line
    store.clear_failure(step)
    return None


@dataclass
class Outcome:
    """How a run ended: steps done before and now, errors by title, and why the blocked did not run."""

    steps: list[Step] = field(default_factory=list)  # as they ran: collective ones narrowed
    cached: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> set[str]:
        return self.failed.keys() | self.blocked.keys()


class Walk:
    """One walk over a plan against a store. ``check`` is asked now and then whether the run may go on: it raises."""

    def __init__(
        self, plan: Sequence[Step], store: Store, say: Callable[[str], None], check: Callable[[], None] = lambda: None
    ) -> None:
        self.store, self.say, self.check = store, say, check
        self.place = {step.title: i for i, step in enumerate(plan)}
        self.waiting = list(plan)
        self.running: dict[str, Step] = {}
        self.outcome = Outcome()

    def run(self, open_executor: Callable[[], Executor]) -> Outcome:
        """Walk to the end. The executor is opened only if there is something to do."""
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
                for step in self.running.values():  # the run is stopped: none of them gets on any more
                    self.store.clear_progress(step)
        return self._ended()

    def _ended(self) -> Outcome:
        """The outcome with its steps in the plan's order, in whatever order they ended."""
        self.outcome.steps.sort(key=lambda step: self.place[step.title])
        return self.outcome

    def _start(self, executor: Executor, ready: list[Step]) -> None:
        for step in ready:
            self.store.clear_failure(step)  # of an earlier run: this one tries again
            self.store.clear_progress(step)
            self.store.discard(step)
        executor.start(ready, self.waiting)

    def survey(self) -> Outcome:
        """What the store holds of the plan, running nothing: the rest failed when last tried, or was not run."""
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
        """One pass over what waits, inputs before readers: settle what is done or blocked, return what can run."""
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
        """The step as it can run now, narrowed if need be; None while it must wait. May mark it blocked."""
        lost = {s.title for s in step.inputs.values()} & self.outcome.lost
        settled = {s.title for s in self.outcome.steps} | self.outcome.lost
        if any(s.title not in settled for s in step.inputs.values()):
            return None
        spare = {s.title for r, s in step.inputs.items() if r.startswith("adapter:")} if step.collective else set()
        if lost - spare or (spare and spare <= lost):
            lost = lost - spare or lost
            self.outcome.blocked[step.title] = f"needs {', '.join(sorted(lost))}"
            self.say(f"{step.title}: not run, {self.outcome.blocked[step.title]}")
        return step.without(lost) if lost else step

    def _have(self, step: Step) -> bool:
        damage = self.store.damage(step)
        if damage is not None:
            self.say(f"{step.title}: {damage} since it was made")
            return False
        return self.store.done(step)

    def _settle(self, step: Step, error: str | None) -> None:
        del self.running[step.title]
        if error is None:
            times = self.store.times(step)
            for line in times.get("lost", ()):
                self.say(f"{step.title}: {line}")
            self.say(f"{step.title}: done in {times.get('seconds', 0.0):.1f} s")
            self.outcome.made.add(step.title)
            self.outcome.steps.append(step)
        else:
            self.say(f"{step.title}: FAILED: {error}")
            self.outcome.failed[step.title] = error

    def _heartbeat(self) -> None:
        for step in self.running.values():
            progress = self.store.progress(step)
            if progress:
                self.say(f"{step.title}: {progress}")
