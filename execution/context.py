"""What a step may use while it runs, the same in this process and on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from execution.step import Step

Inputs = Mapping[str, Path]
ParallelMap = Callable[[Callable[[Any, Inputs], Any], Iterable[Any]], list[Any]]


class Resources(Protocol):
    """What a process keeps from step to step, such as an open engine.

    ``seconds`` is the time spent opening so far: start-up, not work. ``prepare`` is called before every step in the
    process that runs it, ``failed`` after a step that raised, ``close`` when the process runs no more.
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
    """Handed to the ``run`` of every kind of step.

    ``out`` is the empty folder that becomes the result; ``work`` keeps resume state between attempts, on this node,
    and ``keep()`` makes it outlive the node. ``inputs`` are the finished folders of the steps that this one reads, by
    role. ``progress`` takes a line. ``parallel_map(function, items)`` maps ``function(item, inputs)`` over items, on
    the cluster's free slots where there is one: each node has the inputs at a path of its own, so items carry roles,
    never paths. The order of the results is that of the items; ``slots`` is how many can be computed at once.
    ``resources`` are what the process keeps open from step to step.
    """

    config: Mapping[str, Any]
    where: Mapping[str, Any]
    inputs: Inputs
    out: Path
    work: Path
    keep: Callable[[], None]
    progress: Callable[[str], None]
    parallel_map: ParallelMap
    resources: Any
    slots: int = 1
