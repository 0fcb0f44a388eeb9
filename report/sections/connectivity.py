"""Loss along the straight path between two updates, and the barrier on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from report import formats
from report.model_index import ModelIndex
from report.plotting import COLUMN, FLOOR, PAGE, Canvas, Made, called, numbers
from report.section import Section, from_results
from report.tables import Cell, Column, Table, number, records, text
from results import Results
from results.function import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PATHS = 12


def barriers_table(results: Results, index: ModelIndex) -> Table | None:
    """Per path: the loss at both ends and the barrier between them."""
    connectivity = results.connectivity
    if connectivity is None:
        return None

    def loss(value: float | None) -> Cell:
        return number(formats.significant(value), "path not measured")

    def at(path: Path, weight: float) -> float | None:
        return dict(zip(path.weights, path.loss, strict=True)).get(weight)

    def highest(path: Path) -> float | None:
        return max((value for value in path.loss if value is not None), default=None)

    return records(
        "barriers",
        "Barriers between updates",
        connectivity.paths,
        [
            (Column("Path", kind="text"), lambda path: text(f"{index.label(path.a)} → {index.label(path.b)}")),
            (Column("Loss at the first"), lambda path: loss(at(path, 1))),
            (Column("Loss at the second"), lambda path: loss(at(path, 0))),
            (Column("Highest on path"), lambda path: loss(highest(path))),
            (Column("Barrier"), lambda path: loss(path.barrier)),
        ],
        f"Loss: {connectivity.loss}, over {formats.count(connectivity.rows)} held-out rows. The barrier is the largest "
        "excess over the straight line between the two ends, so a path that only climbs from one end to the other has "
        "none. No barrier does not make two updates the same: small updates from one base seldom have "
        "one.",
    )


def _path_panel(axes: Axes, path: Path, index: ModelIndex) -> None:
    # a stored weight is the share of the first update; drawn from the first to the second
    way, loss = 1 - numbers(path.weights), numbers(path.loss)
    way, loss = way[np.argsort(way)], loss[np.argsort(way)]
    axes.plot(way, loss, color="#0072B2", marker="o", markersize=3)
    axes.plot(way[[0, -1]], loss[[0, -1]], color=FLOOR, linestyle="--", linewidth=0.9)
    axes.set_title(f"{called(index, path.a)} →\n{called(index, path.b)}", fontsize=7.5)
    if path.barrier is not None:
        barrier = f"barrier {formats.significant(path.barrier, 2)}"
        axes.text(0.96, 0.94, barrier, transform=axes.transAxes, ha="right", va="top", fontsize=6.5)
    axes.margins(y=0.3)
    axes.locator_params(axis="y", nbins=4)
    axes.set_xticks([0, 0.5, 1])
    axes.tick_params(labelsize=6.5)


def paths(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Loss along the straight path between two updates, beside the straight line between its ends."""
    connectivity = results.connectivity
    if connectivity is None or not connectivity.paths:
        return None
    rows = connectivity.paths[:_MOST_PATHS]
    left_out = len(connectivity.paths) - len(rows)
    columns = min(4, len(rows))
    lines = math.ceil(len(rows) / columns)
    width = max(COLUMN, PAGE * columns / 4)
    figure, grid = canvas.grid(width, 0.4 + 1.45 * lines, lines, columns)
    for axes, path in zip(grid.flat, rows, strict=False):
        _path_panel(axes, path, index)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("weight of the second update, from all first (0) to all second (1)", fontsize=8)
    figure.supylabel("held-out loss", fontsize=8)
    more = f" {left_out} further paths stand in the table." if left_out > 0 else ""
    return (
        figure,
        "Loss along the straight path between two updates",
        (
            f"Loss ({connectivity.loss}) of the interpolated update, over "
            f"{formats.count(connectivity.rows)} rows; dashed: the straight line between the ends. "
            f"The barrier is the largest excess over it. Each panel has its own scale.{more}"
        ),
    )


def _paths(results: Results) -> list[Path]:
    return results.connectivity.paths if results.connectivity else []


SECTION = Section(
    key="connectivity",
    title="Connectivity",
    step="connectivity",
    tables=from_results(barriers_table),
    figures={"paths": paths},
    csv={
        "paths": lambda results: [
            {"a": path.a, "b": path.b, "weights": weight, "loss": loss}
            for path in _paths(results)
            for weight, loss in zip(path.weights, path.loss, strict=True)
        ],
        "barriers": lambda results: [{"a": p.a, "b": p.b, "barrier": p.barrier} for p in _paths(results)],
    },
)
