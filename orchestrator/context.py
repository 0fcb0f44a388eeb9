"""What a step may use while it runs, the same in this process and on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evals.engines import Engine

Inputs = Mapping[str, Path]
Share = Callable[[Callable[[Any, Inputs], Any], Iterable[Any]], list[Any]]


@dataclass(frozen=True)
class Context:
    """Handed to every step function.

    ``out`` is the empty folder that becomes the result; ``work`` keeps resume state between attempts, on this node,
    and ``keep()`` makes it outlive the node. ``inputs`` are the finished folders of the steps that this one reads, by
    role. ``say`` tells progress in one line. ``share(function, items)`` maps ``function(item, inputs)`` over items, on
    the cluster's free slots where there is one: each node has the inputs at a path of its own, so items carry roles,
    never paths. The order of the results is that of the items. ``engine(config, model)`` is an open engine, kept open
    from step to step.
    """

    config: Mapping[str, Any]
    where: Mapping[str, Any]
    inputs: Inputs
    out: Path
    work: Path
    keep: Callable[[], None]
    say: Callable[[str], None]
    share: Share
    engine: Callable[[Mapping[str, Any], Path], Engine]
    slots: int = 1

    def adapters(self) -> dict[str, Path]:
        """The trainings among the inputs, by name."""
        return adapters(self.inputs)


def adapters(inputs: Inputs) -> dict[str, Path]:
    """The adapter folders of the trainings among a step's inputs, by name."""
    found = {r.removeprefix("adapter:"): p for r, p in inputs.items() if r.startswith("adapter:")}
    return {name: folder / "adapter" for name, folder in found.items()}
