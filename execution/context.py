"""What a step may use while it runs; the same interface in one process and on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from execution.step import Step

Inputs = Mapping[str, Path]
Ask = Callable[["Step"], Path]
ParallelMap = Callable[[Callable[[Any, Inputs], Any], Iterable[Any]], list[Any]]


class StepFailed(RuntimeError):
    """A step that another one asked for has failed; the message is its one-line error."""


class Resources(Protocol):
    """What a process keeps open between steps, such as an engine.

    ``seconds`` is the start-up time spent so far. ``prepare`` is called before every step in the process that runs it,
    ``failed`` after a step that raised, ``close`` when the process runs no more steps.
    """

    seconds: float

    def prepare(self, step: Step) -> None: ...

    def failed(self, step: Step) -> None: ...

    def close(self) -> None: ...


class NoResources:
    """For steps that keep nothing open."""

    seconds = 0.0

    def prepare(self, step: Step) -> None: ...

    def failed(self, step: Step) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Context:
    """Argument of the ``run`` of every kind of step.

    ``out`` is the empty folder that becomes the result; ``work`` keeps resume state between attempts on this node, and
    ``keep()`` makes it outlive the node. ``inputs`` maps roles to the finished folders of the steps that this one
    reads. ``progress`` records a line of progress. ``parallel_map(function, items)`` returns ``function(item, inputs)``
    for each item, in order, computed on the cluster's free slots where there is a cluster. Items refer to inputs by
    role, never by path: paths differ between nodes. ``slots`` is how many items can be computed at once.
    ``resources`` is what the process keeps open between steps. ``ask(step)`` returns the folder of another step, which
    is run first unless it is done; it raises :class:`StepFailed` if that failed. ``tuner``, on a cluster, is what runs
    the trials of a search side by side; None: they run in order, in this process.
    """

    config: Mapping[str, Any]
    runtime: Mapping[str, Any]
    inputs: Inputs
    out: Path
    work: Path
    keep: Callable[[], None]
    progress: Callable[[str], None]
    parallel_map: ParallelMap
    resources: Any
    slots: int = 1
    ask: Ask | None = None
    tuner: Any = None
