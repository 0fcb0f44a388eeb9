"""A table of a report: cells that are ready to print, with a caption; cells and tints that many tables share.

No HTML is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from report import formats
from report.model_index import BASE, ModelIndex, OfModel
from results.function import Activations
from results.weights import Spectra

T = TypeVar("T")

ZERO_UPDATE = "undefined, as for a zero update"


@dataclass(frozen=True)
class Cell:
    """``text`` as printed, ``detail`` small below it, ``note`` on hover, ``kind`` its style."""

    text: str
    kind: str = "number"
    detail: str = ""
    note: str = ""
    span: int = 1


@dataclass(frozen=True)
class Column:
    """A heading, its small second line (unit), and whether the cells are text (left) or numbers (right)."""

    title: str
    unit: str = ""
    kind: str = "number"


@dataclass(frozen=True)
class Line:
    """One row of cells; ``kind`` sets its tint: "", floor, chance, base, reference, failed."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A finished table. ``folded`` tables open on a click, so that long ones do not bury the page."""

    key: str
    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    caption: str
    folded: bool = False

    @property
    def headed(self) -> bool:
        """Whether any column has a heading to show."""
        return any(column.title for column in self.columns)


def number(text: str, why: str = "", detail: str = "") -> Cell:
    """A number's cell; a dash carries ``why`` it is missing."""
    if text == formats.MISSING:
        return Cell(text, "missing", "", why or "not recorded")
    return Cell(text, "number", detail)


def text(value: Any, note: str = "") -> Cell:
    """A cell of words; what is missing is a dash."""
    if value is None or value == "":
        return Cell(formats.MISSING, "missing left", "", note or "not recorded")
    return Cell(str(value), "text", "", note)


def named(index: ModelIndex, title: str = "Model", chance: str = "Chance") -> tuple[Column, Callable[[object], Cell]]:
    """The first column of a table with one row a model; a row without a name is what ``chance`` gives."""
    return Column(title, kind="text"), lambda row: text(index.label(row.name) if isinstance(row, OfModel) else chance)


def tint(index: ModelIndex, row: object, rate: bool = False) -> str:
    """The tint of a model's row: chance, base, floor or none; another learning rate is a floor too with ``rate``."""
    if not isinstance(row, OfModel):
        return "chance"
    if row.name == BASE:
        return "base"
    return "floor" if index.role(row.name) in ("order", "init", "cell", *(["rate"] if rate else [])) else ""


def size(key: str, digits: int) -> Callable[[object], Cell]:
    """Cells of a size, which a zero update and chance have not."""

    def cell(row: object) -> Cell:
        if not isinstance(row, OfModel):
            return number(formats.MISSING, "chance has no size of its own")
        return number(formats.significant(getattr(row, key), digits), ZERO_UPDATE)

    return cell


def left_out(measured: Activations | Spectra, subject: str) -> str:
    """Words for a caption: which modules a measurement left out, empty where it has all."""
    kept = formats.count(measured.modules) if isinstance(measured, Activations) else "the other"
    reasons = formats.left_out([vars(row) for row in measured.left_out])
    return f" {subject} {kept} modules; left out: {reasons}." if reasons else ""


def failed(label: str, error: str, width: int) -> Line:
    """The row of a model that has no numbers: its name and, across all other columns, why."""
    return Line((text(label), Cell(f"failed: {error}", "error", span=width - 1)), "failed")


def with_failures(table: Table | None, index: ModelIndex) -> Table | None:
    """The table with a line for each model whose training failed."""
    if table is None:
        return None
    lines = [failed(model.label, model.error, len(table.columns)) for model in index.models.values() if model.error]
    return replace(table, lines=(*table.lines, *lines))


def filled(table: Table) -> Table:
    """The table without the columns in which nothing is known of any line; its first column stays."""
    lines = [line for line in table.lines if len(line.cells) == len(table.columns)]
    kept = [
        at
        for at in range(len(table.columns))
        if at == 0 or any(not line.cells[at].kind.startswith("missing") for line in lines)
    ]
    if len(kept) < 2 or len(kept) == len(table.columns):
        return table
    left_out = len(table.columns) - len(kept)
    return replace(
        table,
        columns=tuple(table.columns[at] for at in kept),
        lines=tuple(_picked(line, kept, left_out) for line in table.lines),
    )


def _picked(line: Line, kept: list[int], left_out: int) -> Line:
    if sum(cell.span for cell in line.cells) > len(line.cells):  # a failure, told across the columns
        *cells, last = line.cells
        return replace(line, cells=(*cells, replace(last, span=last.span - left_out)))
    return replace(line, cells=tuple(line.cells[at] for at in kept))


def records(
    key: str,
    title: str,
    rows: Iterable[T],
    columns: Sequence[tuple[Column, Callable[[T], Cell]]],
    caption: str,
    *,
    kind: Callable[[T], str] = lambda row: "",
    folded: bool = False,
) -> Table | None:
    """A table with one line a record, None where there is no record; columns of which nothing is known are left out."""
    lines = tuple(Line(tuple(make(row) for _, make in columns), kind(row)) for row in rows)
    if not lines:
        return None
    return filled(Table(key, title, tuple(column for column, _ in columns), lines, caption, folded))


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    result: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            result.update(flat(inner, f"{name}."))
        else:
            result[name] = inner
    return result


def plain(value: Any) -> str:
    """A setting's value as one word or a list of them."""
    if value is None:
        return formats.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return formats.rate(value) if abs(value) < 1e-2 else f"{value:g}"
    if isinstance(value, int):
        return formats.count(value) if abs(value) >= 10_000 else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)


def pairs(key: str, title: str, values: Mapping[str, Any], caption: str, *, folded: bool = False) -> Table | None:
    """A two-column table of names and values, None where there is none."""
    lines = tuple(Line((text(name), text(plain(value)))) for name, value in flat(values).items())
    if not lines:
        return None
    return Table(key, title, (Column("", kind="text"), Column("", kind="text")), lines, caption, folded)
