"""What one subject of the report consists of, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from report import headline
from report.model_index import ModelIndex
from report.tables import Table
from results import Results, dump
from results.part import Part

if TYPE_CHECKING:
    from report.plotting import Canvas, Made

P = TypeVar("P")
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """The results, provenance as it is written, and the index of the models that the results name."""

    results: Results
    provenance: dict
    index: ModelIndex

    @cached_property
    def headline(self) -> list[headline.Row]:
        """Every method against the reference, with the floors."""
        return headline.rows(self.results, self.index)


@dataclass(frozen=True)
class Section:
    """One subject: ``report.sections`` has a module for each, and the list of all in reading order.

    ``key`` is its anchor in the page. ``tables``: its tables in reading order, None for one that has no rows.
    ``figures``: a function for each figure, by the file's name; it returns (figure, title, caption), or None where
    nothing was measured. ``csv``: a function from the results to records for each CSV file, by its name.

    ``step`` is the kind of step that makes it. Where the section has neither a table nor a figure, ``absent`` says why;
    without one, the failure of that step or of what it reads. ``texts``: the page of texts that the section links to.
    A comparison of adapters leaves out a section that is not ``in_comparison``, and any that is empty: it was not meant
    to train or to evaluate. A study's page leaves out an ``optional`` one that is empty: few studies ask for it.
    """

    key: str
    title: str
    step: str = ""
    tables: Callable[[Source], Iterable[Table | None]] = lambda source: ()
    figures: Mapping[str, Callable[[Results, ModelIndex, Canvas], Made]] = field(default_factory=dict)
    csv: Mapping[str, Callable[[Results], Records]] = field(default_factory=dict)
    absent: Callable[[Results], str] | None = None
    texts: str = ""
    in_comparison: bool = True
    optional: bool = False


def from_results(*makers: Callable[[Results, ModelIndex], Table | None]) -> Callable[[Source], list[Table | None]]:
    """The tables that functions of the results and the index give, in this order."""
    return lambda source: [make(source.results, source.index) for make in makers]


def csv_of(
    part: Callable[[Results], P | None], files: Mapping[str, Callable[[P], Iterable[Part]]]
) -> dict[str, Callable[[Results], Records]]:
    """A CSV file's records, their keys in the order of the fields, for each name; none where the part is absent."""

    def records(rows: Callable[[P], Iterable[Part]]) -> Callable[[Results], Records]:
        def select(results: Results) -> Records:
            held = part(results)
            return [] if held is None else [dump(row) for row in rows(held)]

        return select

    return {name: records(rows) for name, rows in files.items()}
