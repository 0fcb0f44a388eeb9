"""What the drawings share: a canvas, the widths of a paper, how a model looks, axes and legends.

``figures`` and this module alone import matplotlib; the drawing functions are given a ``Canvas``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from analysis import formats
from analysis.roster import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Made = tuple[Figure, str, str] | None  # a figure, its title and its caption
PAGE = 6.8  # inches
COLUMN = 3.3
FLOOR = "#6b6b6b"


class Canvas:
    """Makes figures; given to the drawing functions so that they need not import matplotlib."""

    def grid(
        self, width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
    ) -> tuple[Figure, np.ndarray]:
        """A figure of ``width`` by ``height`` inches and its axes, rows by columns."""
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        return figure, axes


def short(label: str, width: int = 22) -> str:
    """A label that fits beside an axis: one line, the middle left out where it is too long."""
    line = " ".join(label.split())
    line = f" {line}" if line.startswith("_") else line  # matplotlib leaves such out of a legend
    if len(line) <= width:
        return line
    half = (width - 1) // 2
    return f"{line[:half]}…{line[-half:]}"


def numbers(values: Sequence[float | None] | None) -> np.ndarray:
    """Values as float64, a gap (nan, never drawn) where one is undefined."""
    return np.array([math.nan if value is None else value for value in values or []], dtype=np.float64)


def look(model: Model) -> dict:
    """How a model's line and marker are drawn, the same in every figure."""
    return {
        "color": model.colour, "marker": model.marker, "linestyle": model.line,
        "markerfacecolor": model.colour if model.filled else "white", "markeredgecolor": model.colour,
    }  # fmt: skip


def rate_axis(axes: Axes, rates: Sequence[float]) -> None:
    """A logarithmic axis whose ticks are the learning rates that were run."""
    axes.set_xscale("log")
    axes.set_xticks(list(rates), [formats.rate(rate) for rate in rates])
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(rates) / 1.7, max(rates) * 1.7)
    axes.set_xlabel("learning rate (log scale)")


def log_axis(axes: Axes, which: str, low: float, high: float, most: int = 12) -> None:
    """A logarithmic axis from ``low`` to ``high`` with ``most`` round, plainly written ticks or fewer."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) <= 3 else (1,)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    if math.log10(high / low) < 0.4:
        ticks = [factor * 10.0**decade for decade in decades for factor in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)]
    shown = [tick for tick in ticks if low <= tick <= high]
    shown = shown[:: math.ceil(len(shown) / most)] if shown else shown
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(shown, [f"{tick:g}" for tick in shown])
    axis.set_ticks([], minor=True)


def gathered(figure: Figure, order: Sequence[str] = (), **options: Any) -> None:
    """One legend for all panels, each label once, those in ``order`` first and in that order."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        named.update(zip(labels, handles, strict=True))
    if named:
        labels = sorted(named, key=lambda label: order.index(label) if label in order else len(order))
        figure.legend([named[label] for label in labels], labels, **options)
