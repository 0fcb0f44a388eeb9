"""Executes one step: opens its folders, calls its function, commits the result or records the error."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from execution.clock import Began
from execution.context import Ask, Context, Inputs, ParallelMap, Resources, StepFailed
from execution.errors import ReproducibilityWarning, UserError, WorkerLost, last_line
from execution.memory import PeakMemory
from execution.step import Step
from execution.store import Store


def inputs_of(step: Step, store: Store) -> dict[str, Path]:
    """Role -> local folder of each finished step that this one reads."""
    return {role: store.folder(other) for role, other in step.inputs.items()}


def serial_map(inputs: Inputs) -> ParallelMap:
    """A ``parallel_map`` that computes the items one after another in this process."""

    def parallel_map(function: Callable[[Any, Inputs], Any], items: Iterable[Any]) -> list[Any]:
        return [function(item, inputs) for item in items]

    return parallel_map


def asked_here(store: Store, resources: Resources) -> Ask:
    """The ``ask`` of a step that runs alone: the steps that it asks for run in its process, each of them once."""
    failed: dict[str, str] = {}

    def ask(step: Step) -> Path:
        if step.title not in failed and not store.intact(step):
            store.discard(step)
            error = attempt(step, store, resources)
            if error is not None:
                failed[step.title] = error
        if step.title in failed:
            raise StepFailed(failed[step.title])
        return store.folder(step)

    return ask


def execute(
    step: Step,
    store: Store,
    resources: Resources,
    parallel_map: ParallelMap | None = None,
    slots: int = 1,
    ask: Ask | None = None,
    tuner: Any = None,
) -> None:
    """Run one step and commit it to the store. If it raises, nothing is committed."""
    begun, opening, memory = Began.now(), resources.seconds, PeakMemory()
    resources.prepare(step)
    inputs = inputs_of(step, store)
    with reproducibility_warnings() as lost, store.writing(step) as space:
        progress, mapped = store.progress_writer(step), parallel_map or serial_map(inputs)
        asked = ask or asked_here(store, resources)
        step.kind.run(
            Context(step.config, step.runtime, inputs, *space, progress, mapped, resources, slots, asked, tuner)
        )
        startup, ended = resources.seconds - opening, begun.date + begun.seconds()  # "seconds" includes start-up
        times = {"started": begun.date, "ended": ended, "seconds": ended - begun.date, "startup_seconds": startup}
        # Before the commit: a step that is visible always has its times.
        store.record_times(step, machine() | times | memory.seen() | {"lost": lost})


def attempt(
    step: Step,
    store: Store,
    resources: Resources,
    parallel_map: ParallelMap | None = None,
    slots: int = 1,
    ask: Ask | None = None,
    tuner: Any = None,
) -> str | None:
    """Execute the step. None, or the one-line error, which is also recorded in the store.

    ``WorkerLost`` is raised: whoever placed the step counts its deaths.
    """
    try:
        execute(step, store, resources, parallel_map, slots, ask, tuner)
    except WorkerLost:
        resources.failed(step)
        raise
    except Exception as error:  # a step's error is its result and must not stop other steps
        line = one_line(error).replace(str(store.storage), "the run's folder")
        resources.failed(step)
        store.record_failure(step, line)
        return line
    store.clear_failure(step)
    return None


def assist(step: Step, store: Store, resources: Resources) -> None:
    """Take part in a step that several workers compute together, as a worker that does not write the result."""
    resources.prepare(step)
    assert step.kind.assist is not None, f"{step.title} is computed by one worker"
    step.kind.assist(step.config, step.runtime, inputs_of(step, store))


@contextmanager
def reproducibility_warnings() -> Iterator[list[str]]:
    """Collect the messages of every :class:`ReproducibilityWarning` raised in the block, for the step's record."""
    lines: list[str] = []
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, ReproducibilityWarning):
            lines.append(str(message))
        else:
            shown(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", ReproducibilityWarning)
        warnings.showwarning = show
        yield lines


def machine() -> dict[str, str]:
    """This process's host name and visible GPUs."""
    return {"node": socket.gethostname(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


def one_line(error: BaseException) -> str:
    """An error as one line for the report: its message, preceded by the type unless it is a ``ValueError``."""
    message, kind = last_line(error, most=None), type(error).__name__
    return message if isinstance(error, (UserError, ValueError)) or message == kind else f"{kind}: {message}"
