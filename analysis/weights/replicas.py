"""Which trainings repeat which: what another order of rows, another initial A or another rate alone gives.

A *family* holds the runs of one method at one learning rate and one initial A, which differ in the order of their rows
alone: they are exchangeable, and the spread between them is what a new order gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

ORDER, INIT, RATE = "order", "init", "learning_rate"


@dataclass(frozen=True)
class Run:
    """One training. ``method`` is the training that it repeats with something changed, or itself."""

    name: str
    method: str
    learning_rate: float | None = None
    init: int | None = None
    order: int | None = None

    @property
    def family(self) -> tuple[str, float | None, int | None]:
        return self.method, self.learning_rate, self.init


def runs(trainings: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[Run]:
    """The runs called ``names`` in their order; a name that no training claims stands for itself."""
    rows = {row["name"]: row for row in trainings if row.get("name")}
    found = []
    for name in names:
        row = rows.get(name) or {}
        seeds = row.get("learning_rate"), row.get("init_seed"), row.get("order_seed")
        found.append(Run(name, _root(rows, name), *seeds))
    return found


def noise(trainings: Iterable[Mapping[str, Any]]) -> set[str]:
    """The trainings whose update was made of rounding alone, as their rows say: it has no direction."""
    return {row["name"] for row in trainings if row.get("name") and row.get("noise")}


def _root(rows: Mapping[str, Mapping[str, Any]], name: str) -> str:
    seen = {name}
    while True:
        row = rows.get(name) or {}
        of = row.get("of") or (name if row.get("role") in (None, "method") else row.get("method")) or name
        if of in seen:
            return of
        seen.add(of)
        name = of


def repeats(known: Iterable[Run]) -> dict[str, list[tuple[str, str]]]:
    """Pairs of runs of one method that differ in one thing alone: its order, its initial A, its learning rate."""
    found: dict[str, list[tuple[str, str]]] = {ORDER: [], INIT: [], RATE: []}
    for a, b in combinations(known, 2):
        if a.method == b.method:
            differs = [kind for kind in found if getattr(a, kind) != getattr(b, kind)]
            if len(differs) == 1:
                found[differs[0]].append((a.name, b.name))
    return found


def families(known: Iterable[Run]) -> dict[tuple[str, float | None, int | None], list[Run]]:
    """The runs by family, in their order."""
    found: dict[tuple[str, float | None, int | None], list[Run]] = {}
    for run in known:
        found.setdefault(run.family, []).append(run)
    return found
