"""Replicas: trainings of one method that differ only in row order, initial A or learning rate.

A *family* holds the runs of one method at one learning rate and one initial A, which differ only in row order: they are
exchangeable, and their spread is the effect of the order seed. Runs that began from a random B (start b) are of other
families than those that began from a random A.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

ORDER, INIT, RATE = "order", "init", "learning_rate"
Key = tuple[str, float | None, int | None, str]  # of a family: method, learning rate, init seed, start


@dataclass(frozen=True)
class Run:
    """One training. ``method`` is the name of the training that it is a replica of, or its own name; ``start`` the
    factor that was drawn from ``init``, a or b."""

    name: str
    method: str
    learning_rate: float | None = None
    init: int | None = None
    order: int | None = None
    start: str = "a"

    @property
    def family(self) -> Key:
        return self.method, self.learning_rate, self.init, self.start


def runs(trainings: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[Run]:
    """The runs of ``names``, in order; a name without a training is its own method."""
    rows = {row["name"]: row for row in trainings if row.get("name")}
    result = []
    for name in names:
        row = rows.get(name) or {}
        seeds = row.get("learning_rate"), row.get("init_seed"), row.get("order_seed")
        result.append(Run(name, _root(rows, name), *seeds, row.get("start") or "a"))
    return result


def noise(trainings: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of the trainings flagged as ``noise``: their update is rounding and has no direction."""
    return {row["name"] for row in trainings if row.get("name") and row.get("noise")}


def _root(rows: Mapping[str, Mapping[str, Any]], name: str) -> str:
    seen = {name}
    while True:
        row = rows.get(name) or {}
        of = row.get("of") or (name if row.get("role") in (None, "method", "variant") else row.get("method")) or name
        if of in seen:
            return of
        seen.add(of)
        name = of


def repeats(known: Iterable[Run]) -> dict[str, list[tuple[str, str]]]:
    """Pairs of runs of one method that differ only in order, initial A or learning rate, by which of these it is."""
    listed, kinds = list(known), (ORDER, INIT, RATE)
    pairs: dict[str, list[tuple[str, str]]] = {}
    for kind in kinds:
        alike: dict[tuple[Any, ...], list[int]] = {}
        for i, run in enumerate(listed):
            rest = (getattr(run, other) for other in kinds if other != kind)
            alike.setdefault((run.method, run.start, *rest), []).append(i)
        found = [
            (i, j)
            for places in alike.values()
            for i, j in combinations(places, 2)
            if getattr(listed[i], kind) != getattr(listed[j], kind)
        ]
        pairs[kind] = [(listed[i].name, listed[j].name) for i, j in sorted(found)]
    return pairs


def families(known: Iterable[Run]) -> dict[Key, list[Run]]:
    """The runs by family, in order."""
    result: dict[Key, list[Run]] = {}
    for run in known:
        result.setdefault(run.family, []).append(run)
    return result
