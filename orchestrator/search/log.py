"""What a search has decided so far, kept sealed in its workspace: an interrupted one takes the same decisions again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from execution import durable

FILE = "decisions.json"


class Decision(TypedDict):
    """Whether a trial, by its number, goes on after a rung. ``values``: the accuracies at the rung before its own;
    ``cutoff``: the least that goes on, None for the rung's first."""

    trial: int
    rung: int
    value: float
    stop: bool
    cutoff: float | None
    values: list[float]


class Log:
    """Decisions in the order in which they were taken, and the rates that were suggested, by the trials' numbers."""

    def __init__(self, work: Path, keep: Callable[[], None]) -> None:
        self._path, self._keep = work / FILE, keep
        held: dict[str, Any] = durable.recall(self._path) or {"decisions": [], "rates": []}
        self.decisions: list[Decision] = held["decisions"]
        self.rates: list[float] = held["rates"]

    def decision(self, trial: int, rung: int) -> Decision | None:
        return next((one for one in self.decisions if (one["trial"], one["rung"]) == (trial, rung)), None)

    def stopped(self, trial: int) -> Decision | None:
        return next((one for one in self.decisions if one["trial"] == trial and one["stop"]), None)

    def values(self, rung: int) -> list[float]:
        """The accuracies at a rung so far."""
        return [one["value"] for one in self.decisions if one["rung"] == rung]

    def decide(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self._write()

    def suggest(self, rate: float) -> None:
        self.rates.append(rate)
        self._write()

    def _write(self) -> None:
        durable.keep(self._path, {"decisions": self.decisions, "rates": self.rates})
        self._keep()
