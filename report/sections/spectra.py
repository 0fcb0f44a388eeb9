"""Where the updates lie in the singular directions of the base's own weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from report import (
    formats,
    typed_soon,  # typed soon
)
from report.model_index import Model, ModelIndex
from report.plotting import CHANCE, PAGE, Canvas, Made, called, gathered, log_axis, look
from report.section import Section, from_results, rows_at
from report.tables import ZERO_UPDATE, Cell, Column, Table, number, records  # typed soon
from report.typed_soon import left_out, named, size, tint  # typed soon

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def spectra_table(results: dict, index: ModelIndex) -> Table | None:
    """Where each update lies in the base weights' own singular directions."""
    found = results.get("spectra") or {}
    top, threshold = f"top {found['k']}" if found.get("k") else "top", found.get("threshold")
    rows = typed_soon.in_order(index, found.get("adapters") or [])  # typed soon
    if rows and found.get("chance"):
        rows.append({"chance": True, **found["chance"]})

    def share(key: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.significant(row.get(key), 2), ZERO_UPDATE)

    def counted(row: dict) -> Cell:
        if row.get("intruders") is None:
            return number(formats.MISSING, "not defined for chance" if row.get("chance") else ZERO_UPDATE)
        return number(formats.count(row["intruders"]))

    return records(
        "spectra",
        "Updates beside the base’s weights",
        rows,
        [
            named(index),
            (Column("In both", f"{top}, share of ‖ΔW‖²"), share("both")),
            (Column("Output side", top), share("left")),
            (Column("Input side", top), share("right")),
            (Column("Size", "‖ΔW‖ / ‖W‖"), size("relative_norm", 2)),
            (Column("Intruders", "all modules"), counted),
        ],
        f"Share of the update’s squared norm within the {top} left, right, or both singular directions of the "
        f"base’s weight, over all modules. Intruders: among the {top} left singular vectors of W + ΔW, those whose "
        f"cosine to every one of W’s is below {formats.significant(threshold, 2)}.{left_out(found, 'All are over')}",
        kind=lambda row: tint(index, row, rate=True),
        folded=True,
    )


def spectra(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Shares of the updates in the base weights' top singular directions, against chance."""
    found = results.get("spectra") or {}
    by_name = {row.get("name"): row for row in found.get("adapters") or []}
    names = [name for name in index.order(by_name) if by_name[name].get("both")]
    if not names:
        return None
    sides = {"left": "output side", "right": "input side", "both": "both sides"}
    chance = found.get("chance") or {}
    figure, grid = canvas.grid(PAGE, 1.5 + 0.2 * len(names), 1, len(sides), sharey=True)
    held = [by_name[name].get(key) for name in names for key in sides] + [chance.get(key) for key in sides]
    ends = [value for value in held if value]
    for axes, (key, words) in zip(grid[0], sides.items(), strict=True):
        values = [by_name[name].get(key) for name in names]
        _shares(axes, [index.models[name] for name in names], values, chance.get(key))
        log_axis(axes, "x", min(ends) / 2, max(ends) * 2, most=4)
        axes.set_yticks(range(len(names)), [called(index, name) for name in names])
        axes.set_title(words)
    top = f"top {found['k']}" if found.get("k") else "top"
    grid[0][1].set_xlabel(f"share of ‖ΔW‖² in the base’s {top} directions (log scale, one range)")
    gathered(figure)
    return (
        figure,
        "Where the base’s weights point",
        (
            f"Share of each update’s squared norm within the {top} singular directions of the base’s "
            f"own weights; dashed: a random update’s ({formats.significant(chance.get('left'), 2)} on the output side)."
        ),
    )


def _shares(axes: Axes, models: list[Model], values: list[float | None], chance: float | None) -> None:
    for i, (model, value) in enumerate(zip(models, values, strict=True)):
        if value:
            axes.plot([value], [i], **{**look(model), "linestyle": "none"})
    if chance:
        axes.axvline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance")
    axes.set_ylim(len(models) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


SECTION = Section(
    key="spectra",
    title="The updates beside the base’s weights",
    step="spectra",
    tables=from_results(spectra_table),
    figures={"spectra": spectra},
    csv={
        "spectra": rows_at("spectra", "adapters"),
        "spectra_layers": rows_at("spectra", "layers"),
        "spectra_projections": rows_at("spectra", "projections"),
        "spectra_modules": rows_at("spectra", "modules"),
    },
)
