"""What one subject of the report consists of, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from report import headline
from report.model_index import ModelIndex
from report.tables import Table
from results import Results  # typed soon

if TYPE_CHECKING:
    from report.plotting import Canvas, Made

Records = list[dict]


@dataclass(frozen=True)
class Source:
    """Results and provenance as they are written, with the index of the models that the results name."""

    results: dict
    provenance: dict
    index: ModelIndex

    @cached_property
    def headline(self) -> list[headline.Row]:
        """Every method against the reference, with the floors."""
        return headline.rows(Results.model_validate(self.results), self.index)  # typed soon


@dataclass(frozen=True)
class Section:
    """One subject: ``report.sections`` has a module for each, and the list of all in reading order.

    ``key`` is its anchor in the page. ``tables``: its tables in reading order, None for one that has no rows.
    ``figures``: a function for each figure, by the file's name; it returns (figure, title, caption), or None where
    nothing was measured. ``csv``: a function from the results to records for each CSV file, by its name.

    ``step`` is the kind of step that makes it. Where the section has neither a table nor a figure, ``absent`` says why;
    without one, the failure of that step or of what it reads. ``texts``: the page of texts that the section links to.
    A comparison of adapters leaves out a section that is not ``in_comparison``, and any that is empty: it was not meant
    to train or to evaluate.
    """

    key: str
    title: str
    step: str = ""
    tables: Callable[[Source], Iterable[Table | None]] = lambda source: ()
    figures: Mapping[str, Callable[[dict, ModelIndex, Canvas], Made]] = field(default_factory=dict)
    csv: Mapping[str, Callable[[dict], Records]] = field(default_factory=dict)
    absent: Callable[[dict], str] | None = None
    texts: str = ""
    in_comparison: bool = True


def from_results(*makers: Callable[[dict, ModelIndex], Table | None]) -> Callable[[Source], list[Table | None]]:
    """The tables that functions of the results and the index give, in this order."""
    return lambda source: [make(source.results, source.index) for make in makers]


def rows_at(*keys: str) -> Callable[[dict], Records]:
    """The records that stand at a place in the results, none where there is no such place."""

    def rows(results: dict) -> Records:
        found = results
        for key in keys[:-1]:
            found = found.get(key) or {}
        return found.get(keys[-1]) or []

    return rows


def unrolled(rows: Iterable[dict], keys: Sequence[str], lists: Sequence[str]) -> Records:
    """Records whose values under ``lists`` are parallel lists, as one record an element; ``keys`` are repeated."""
    found = []
    for row in rows:
        values = {key: row.get(key) or [] for key in lists}
        for i in range(max(map(len, values.values()), default=0)):
            picked = {key: held[i] if i < len(held) else None for key, held in values.items()}
            found.append({**{key: row.get(key) for key in keys}, **picked})
    return found
