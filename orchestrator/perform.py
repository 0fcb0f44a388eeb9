"""One step, performed: folders opened, threads set, the function called, the result committed. Knows no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.context import Context
from orchestrator.errors import UserError
from orchestrator.plan import Step
from orchestrator.steps import function_of
from orchestrator.store import Store
from orchestrator.threads import pin

if TYPE_CHECKING:
    from evals.engines import Engine

PROGRESS = "progress"


class Engines:
    """The open engine of this process: one at a time, reopened when another model or setting is asked for."""

    def __init__(self) -> None:
        self._open: tuple[Any, Engine] | None = None
        self.seconds = 0.0  # spent opening engines: start-up, not work

    def __call__(self, config: Mapping[str, Any], model: Path) -> Engine:
        from evals.engines import open_engine

        wanted = (dict(config), model)
        if self._open is None or self._open[0] != wanted:
            self.close()
            begun = time.monotonic()
            self._open = (wanted, open_engine(model=model, **config))
            self.seconds += time.monotonic() - begun
        return self._open[1]

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


def in_turn(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """The serial ``share``."""
    return [function(item) for item in items]


def perform(
    step: Step,
    store: Store,
    engines: Engines,
    share: Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]] = in_turn,
    slots: int = 1,
) -> None:
    """Run one step to its commit in the store. Whatever it raises leaves the store without the step."""
    begun, opening = time.time(), engines.seconds
    inputs = {role: store.folder(other) for role, other in step.inputs.items()}
    threads = step.config.get("threads") or step.config.get("engine", {}).get("threads", 1)
    pin(threads)
    _quiet()
    with store.writing(step) as (out, work):
        progress = work / PROGRESS

        def say(line: str) -> None:
            progress.write_text(line)

        function_of(step.kind)(Context(step.config, step.where, inputs, out, work, say, share, engines, slots))
        startup, ended = engines.seconds - opening, time.time()  # start-up is part of the seconds
        times = {"started": begun, "ended": ended, "seconds": ended - begun, "startup_seconds": startup}
        store.record_times(step, times)  # before the commit: who sees the step finds its times


def _quiet() -> None:
    """No progress bars of other libraries between the lines of ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def progress_of(step: Step, store: Store) -> str:
    """The last line of progress that a running step told; empty where it told none."""
    path = store.partial(step) / "work" / PROGRESS
    try:
        return path.read_text()
    except OSError:
        return ""


def explain(error: BaseException) -> str:
    """An error as one line for the report: its message, with the type where the message alone says too little."""
    lines = str(error).strip().splitlines()
    message = lines[-1] if lines else ""
    if isinstance(error, (UserError, ValueError)) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
