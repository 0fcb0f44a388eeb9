"""What the figures share: a canvas, the widths of a paper, how a model looks, axes, floors as lines, legends.

``figures`` and this module alone import matplotlib; the drawing functions are given a ``Canvas``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from report import formats
from report.model_index import BRIEF, Model, ModelIndex, brief, other
from results import Results
from results.weights import ByChance, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Made = tuple[Figure, str, str] | None  # a figure, its title and its caption
PAGE = 6.8  # inches
COLUMN = 3.3
FLOOR = "#6b6b6b"
CHANCE = "#A0522D"
LAYER = "layer, from 0 at the input"
EMBEDDINGS = "emb."  # where the hidden states of a layer would be, what comes before layer 0
FONT = "DejaVu Sans"  # comes with matplotlib: a drawing's bytes do not depend on a machine's fonts
_WIDEST = 4  # steps of width by which what lies below others is drawn wider
_FLOOR_LINES: dict[str, Any] = {"order": "-.", "init": ":", "learning_rate": (0, (6, 2))}
_LEGEND_SIZE = 7.5  # points
_LEGEND_LINE = 0.165  # inches
_LEGEND_LETTER = 0.062
_LEGEND_HANDLE = 0.55
_LEGEND_LINES = 4  # that a figure's own height has room for below its axes


class Canvas:
    """Makes figures; given to the drawing functions so that they need not import matplotlib."""

    def grid(
        self, width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
    ) -> tuple[Figure, np.ndarray]:
        """A figure of ``width`` by ``height`` inches and its axes, rows by columns."""
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        return figure, axes


def short(label: str, width: int = BRIEF) -> str:
    """A text that fits beside an axis: one line, the middle left out where it is too long, in glyphs of the font."""
    line = drawable(brief(label, width))
    return f" {line}" if line.startswith("_") else line  # matplotlib leaves such out of a legend


def called(index: ModelIndex, name: str | None) -> str:
    """What a model is called in a drawing; no two have one name."""
    return short(index.brief(name), 10_000)


def drawable(text: str) -> str:
    """``text`` with the numbers of the characters that the drawings' font has no glyph for: ``[U+6A21 578B]``."""
    parts = []
    for known, run in groupby(text, lambda c: ord(c) in _glyphs()):
        letters = list(run)
        parts += letters if known else [f"[U+{' '.join(f'{ord(c):04X}' for c in letters)}]"]
    return "".join(parts)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """Values as float64, a gap (nan, never drawn) where one is undefined."""
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def look(model: Model) -> dict:
    """How a model's line and marker are drawn, the same in every figure."""
    return {
        "color": model.colour, "marker": model.marker, "linestyle": model.line,
        "markerfacecolor": model.colour if model.filled else "white", "markeredgecolor": model.colour,
    }  # fmt: skip


def covered(courses: Sequence[np.ndarray], reach: float = 0.012) -> list[int]:
    """How many of the later courses lie on each one, all points of it: drawn equally, they would hide it.

    ``courses``: n x 2 each, in shares of the axes' width and height; points nearer than ``reach`` coincide.
    """
    return [sum(_on(course, later, reach) for later in courses[i + 1 :]) for i, course in enumerate(courses)]


def _on(one: np.ndarray, two: np.ndarray, reach: float) -> bool:
    if one.shape != two.shape:
        return False
    both = np.isfinite(one).all(1) & np.isfinite(two).all(1)
    return bool(both.any() and np.allclose(one[both], two[both], rtol=0, atol=reach))


def bring_out(axes: Axes, index: ModelIndex) -> None:
    """What lies under other models' points or lines is drawn wider and open, so that its rim shows; call it last."""
    names = {called(index, name) for name in index.models}
    lines = [line for line in axes.lines if line.get_label() in names]
    _ = axes.get_xlim(), axes.get_ylim()  # settles what is scaled by itself
    seen = axes.transData + axes.transAxes.inverted()
    courses = [np.asarray(seen.transform(np.column_stack(line.get_data()))) for line in lines]
    for line, under in zip(lines, covered(courses), strict=True):
        if under:
            line.set_linewidth(line.get_linewidth() + 1.4 * min(under, _WIDEST))
            line.set_markersize(line.get_markersize() + 4 * min(under, _WIDEST))
            line.set_markerfacecolor("none")


def shared_range(panels: Sequence[Axes], which: str) -> None:
    """One range, the widest, for panels that show one quantity."""
    ranges = [getattr(axes, f"get_{which}lim")() for axes in panels]
    for axes in panels:
        axes.set(**{f"{which}lim": (min(low for low, _ in ranges), max(high for _, high in ranges))})


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


def layer_axis(axes: Axes, layers: list[int]) -> None:
    """An axis over ``layers``, at most about twelve of them labelled."""
    step = max(1, math.ceil(len(layers) / 12))
    axes.set_xticks(layers[::step], [EMBEDDINGS if at < 0 else str(at) for at in layers[::step]])
    axes.set_xlabel(LAYER)


def every(length: int) -> int:
    """How many points stand between two markers, so that a long line carries about twelve."""
    return max(1, length // 12)


@dataclass(frozen=True)
class FloorLine:
    """What a measure is for a floor. ``kind``: order, init, learning_rate or chance."""

    kind: str
    label: str
    value: float
    dashes: Any
    colour: str = FLOOR


def same_start(index: ModelIndex) -> str:
    """What chance from one and the same start is called in a drawing."""
    return f"chance, same {index.by_chance.initial}"


def floor_lines(
    results: Results, index: ModelIndex, measure: Callable[[Pair | ByChance], float | None]
) -> list[FloorLine]:
    """The floors for which ``measure`` was taken: the reference's replicas, then what chance gives."""
    if results.geometry is None:
        return []
    lines = []
    for kind, pair in results.geometry.floors.pairs:
        value, replica = measure(pair), other(pair, index.reference)
        if value is not None and replica in index.models:
            lines.append(FloorLine(kind, f"floor: {called(index, replica)}", value, _FLOOR_LINES[kind]))
    chance = results.geometry.chance
    shared, anywhere = (chance.shared_a, same_start(index), "--"), (chance.ambient, "chance, random", (0, (1, 3)))
    for by, words, dashes in (shared, anywhere):
        if (value := measure(by)) is not None:
            lines.append(FloorLine("chance", words, value, dashes, CHANCE))
    return lines


def gathered(figure: Figure, order: Sequence[str] = (), beside: bool = False, columns: int = 4) -> None:
    """One legend for all panels, each label once, those in ``order`` first and in that order.

    ``beside`` the axes where it fits into the figure's height; else below them, in as many columns as the width takes
    and ``columns`` at most, and the figure grows by what it has no room for.
    """
    named: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        named.update(zip(labels, handles, strict=True))
    if not named:
        return
    labels = sorted(named, key=lambda label: order.index(label) if label in order else len(order))
    shown = [named[label] for label in labels]
    height = figure.get_figheight()
    if beside and len(labels) * _LEGEND_LINE <= height - 0.2:
        figure.legend(shown, labels, loc="outside right center", labelspacing=0.55, fontsize=_LEGEND_SIZE)
        return
    widest = max(map(len, labels)) * _LEGEND_LETTER + _LEGEND_HANDLE
    columns = max(1, min(columns, int(figure.get_figwidth() / widest)))
    lines = math.ceil(len(labels) / columns)
    figure.set_figheight(height + _LEGEND_LINE * max(0, lines - (0 if beside else _LEGEND_LINES)))
    figure.legend(shown, labels, loc="outside lower center", ncols=columns, fontsize=_LEGEND_SIZE)
