"""Loss along the straight path between two updates, and the barrier on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from report import formats
from report.model_index import ModelIndex
from report.plotting import COLUMN, FLOOR, PAGE, Canvas, Made, called, numbers
from report.section import Section, from_results, rows_at, unrolled
from report.tables import Cell, Column, Table, number, records, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PATHS = 12
_paths = rows_at("connectivity", "paths")


def barriers_table(results: dict, index: ModelIndex) -> Table | None:
    """Per path: the loss at both ends and the barrier between them."""
    connectivity = results.get("connectivity") or {}

    def at(row: dict, weight: float) -> Cell:
        losses = dict(zip(row.get("weights") or [], row.get("loss") or [], strict=False))
        return number(formats.significant(losses.get(weight)), "path not measured")

    def highest(row: dict) -> Cell:
        losses = [value for value in row.get("loss") or [] if value is not None]
        return number(formats.significant(max(losses)) if losses else formats.MISSING, "path not measured")

    return records(
        "barriers",
        "Barriers between updates",
        connectivity.get("paths") or [],
        [
            (
                Column("Path", kind="text"),
                lambda row: text(f"{index.label(row.get('a'))} → {index.label(row.get('b'))}"),
            ),
            (Column("Loss at the first"), lambda row: at(row, 1)),
            (Column("Loss at the second"), lambda row: at(row, 0)),
            (Column("Highest on path"), highest),
            (
                Column("Barrier"),
                lambda row: number(formats.significant(row.get("barrier")), "path not measured"),
            ),
        ],
        f"Loss: {connectivity.get('loss') or 'not recorded'}, over "
        f"{formats.count(connectivity.get('rows'))} held-out rows. The barrier is the largest excess over "
        "the straight line between the two ends, so a path that only climbs from one end to the other has "
        "none. No barrier does not make two updates the same: small updates from one base seldom have "
        "one.",
    )


def _path_panel(axes: Axes, row: dict, index: ModelIndex) -> None:
    # a stored weight is the share of the first update; drawn from the first to the second
    way, loss = 1 - numbers(row["weights"]), numbers(row["loss"])
    way, loss = way[np.argsort(way)], loss[np.argsort(way)]
    axes.plot(way, loss, color="#0072B2", marker="o", markersize=3)
    axes.plot(way[[0, -1]], loss[[0, -1]], color=FLOOR, linestyle="--", linewidth=0.9)
    a, b = (called(index, row.get(key)) for key in ("a", "b"))
    axes.set_title(f"{a} →\n{b}", fontsize=7.5)
    if row.get("barrier") is not None:
        axes.text(
            0.96,
            0.94,
            f"barrier {formats.significant(row['barrier'], 2)}",
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=6.5,
        )
    axes.margins(y=0.3)
    axes.locator_params(axis="y", nbins=4)
    axes.set_xticks([0, 0.5, 1])
    axes.tick_params(labelsize=6.5)


def paths(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Loss along the straight path between two updates, beside the straight line between its ends."""
    connectivity = results.get("connectivity") or {}
    rows = [
        row
        for row in connectivity.get("paths") or []
        if row.get("loss") and len(row["loss"]) == len(row.get("weights") or [])
    ]
    if not rows:
        return None
    left_out = len(rows) - _MOST_PATHS
    rows = rows[:_MOST_PATHS]
    columns = min(4, len(rows))
    lines = math.ceil(len(rows) / columns)
    width = max(COLUMN, PAGE * columns / 4)
    figure, grid = canvas.grid(width, 0.4 + 1.45 * lines, lines, columns)
    for axes, row in zip(grid.flat, rows, strict=False):
        _path_panel(axes, row, index)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("weight of the second update, from all first (0) to all second (1)", fontsize=8)
    figure.supylabel("held-out loss", fontsize=8)
    more = f" {left_out} further paths stand in the table." if left_out > 0 else ""
    return (
        figure,
        "Loss along the straight path between two updates",
        (
            f"Loss ({connectivity.get('loss') or 'not recorded'}) of the interpolated update, over "
            f"{formats.count(connectivity.get('rows'))} rows; dashed: the straight line between the ends. "
            f"The barrier is the largest excess over it. Each panel has its own scale.{more}"
        ),
    )


SECTION = Section(
    key="connectivity",
    title="Connectivity",
    step="connectivity",
    tables=from_results(barriers_table),
    figures={"paths": paths},
    csv={
        "paths": lambda results: unrolled(_paths(results), ("a", "b"), ("weights", "loss")),
        "barriers": lambda results: [{key: row.get(key) for key in ("a", "b", "barrier")} for row in _paths(results)],
    },
)
