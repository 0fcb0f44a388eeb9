"""What a step may use while it runs, the same in this process and on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from evals.engines import Engine

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Context:
    """Handed to every step function.

    ``out`` is the empty folder that becomes the result, ``work`` keeps resume state between attempts, ``inputs``
    are the finished folders of the steps that this one reads, by role. ``say`` tells progress in one line.
    ``share(function, items)`` maps over items, on the cluster's free slots where there is one; the order of the
    results is that of the items. ``engine(config, model)`` is an open engine, kept open from step to step.
    """

    config: Mapping[str, Any]
    where: Mapping[str, Any]
    inputs: Mapping[str, Path]
    out: Path
    work: Path
    say: Callable[[str], None]
    share: Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]
    engine: Callable[[Mapping[str, Any], Path], Engine]
    slots: int = 1

    def adapters(self) -> dict[str, Path]:
        """The trainings among the inputs, by name."""
        found = {r.removeprefix("adapter:"): p for r, p in self.inputs.items() if r.startswith("adapter:")}
        return {name: folder / "adapter" for name, folder in found.items()}
