"""One step, executed: folders opened, its function called, the result committed, the error put in a line."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from execution.clock import Began
from execution.context import Context, Inputs, ParallelMap, Resources
from execution.errors import ReproducibilityWarning, UserError, last_line
from execution.step import Step
from execution.store import Store


def inputs_of(step: Step, store: Store) -> dict[str, Path]:
    """The finished folders that the step reads, on this node, by role."""
    return {role: store.folder(other) for role, other in step.inputs.items()}


def serial_map(inputs: Inputs) -> ParallelMap:
    """A ``parallel_map`` that computes item after item in this process."""

    def parallel_map(function: Callable[[Any, Inputs], Any], items: Iterable[Any]) -> list[Any]:
        return [function(item, inputs) for item in items]

    return parallel_map


def execute(
    step: Step, store: Store, resources: Resources, parallel_map: ParallelMap | None = None, slots: int = 1
) -> None:
    """Run one step to its commit in the store. Whatever it raises leaves the store without the step."""
    begun, opening = Began.now(), resources.seconds
    resources.prepare(step)
    inputs = inputs_of(step, store)
    with reproducibility_warnings() as lost, store.writing(step) as space:
        progress, mapped = store.progress_writer(step), parallel_map or serial_map(inputs)
        step.kind.run(Context(step.config, step.where, inputs, *space, progress, mapped, resources, slots))
        startup, ended = resources.seconds - opening, begun.date + begun.seconds()  # start-up is part of the seconds
        times = {"started": begun.date, "ended": ended, "seconds": ended - begun.date, "startup_seconds": startup}
        # Before the commit: who sees the step finds its times.
        store.record_times(step, machine() | times | {"lost": lost})


def attempt(
    step: Step, store: Store, resources: Resources, parallel_map: ParallelMap | None = None, slots: int = 1
) -> str | None:
    """Execute the step; a failure is recorded in the store and returned as its one line."""
    try:
        execute(step, store, resources, parallel_map, slots)
    except Exception as error:  # any error of a step is that step's result, and must not take others down
        line = one_line(error).replace(str(store.storage), "the run's folder")
        resources.failed(step)
        store.record_failure(step, line)
        return line
    store.clear_failure(step)
    return None


def assist(step: Step, store: Store, resources: Resources) -> None:
    """A further worker's part in a step that several compute together: it computes its share, and writes nothing."""
    resources.prepare(step)
    assert step.kind.assist is not None, f"{step.title} is computed by one worker"
    step.kind.assist(step.config, step.where, inputs_of(step, store))


@contextmanager
def reproducibility_warnings() -> Iterator[list[str]]:
    """Collects every :class:`ReproducibilityWarning` of the block as a line, for the step's record."""
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
    """On which machine, and on which GPUs of it, this process computes."""
    return {"node": socket.gethostname(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


def one_line(error: BaseException) -> str:
    """An error as one line for the report: its message, with the type where the message alone says too little."""
    message, kind = last_line(error, most=None), type(error).__name__
    return message if isinstance(error, (UserError, ValueError)) or message == kind else f"{kind}: {message}"
