"""Drawings of features: CKA of hidden states and of the adapted projections.

Each returns (figure, title, caption), or None where nothing was measured.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from analysis import formats
from analysis.canvas import PAGE, Canvas, Made, gathered, look, numbers, short
from analysis.figures_weights import CHANCE, every, layer_axis
from analysis.roster import BASE, Roster, other

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ORDER = "qkvo"  # projections in the order that attention uses them


def cka(results: dict, roster: Roster, canvas: Canvas) -> Made:
    """CKA of hidden states by layer, to the reference and to the base, with the shuffled control."""
    rows = [row for row in (results.get("similarity") or {}).get("hidden") or [] if row.get("cka") is not None]
    targets = [name for name in (roster.reference, BASE) if any(other(row, name) for row in rows)]
    if not targets:
        return None
    figure, grid = canvas.grid(PAGE, 3.4, 1, len(targets), sharey=True)
    for axes, target in zip(grid[0], targets, strict=True):
        found = [row for row in rows if other(row, target) is not None and row.get("layer") is not None]
        names = roster.order([other(row, target) or "" for row in found])
        for name in names:
            _cka_line(axes, roster, name, sorted((row for row in found if other(row, target) == name), key=_layer))
        depth = sorted({row["layer"] for row in found})
        shuffled = [
            [row["shuffled"] for row in found if row["layer"] == at and row.get("shuffled") is not None] for at in depth
        ]
        control = [float(np.mean(values)) if values else None for values in shuffled]
        axes.plot(
            depth,
            numbers(control),
            color=CHANCE,
            linestyle="--",
            linewidth=1,
            label="shuffled control",
        )
        layer_axis(axes, depth)
        axes.set_title(f"to {short(roster.label(target))}")
    grid[0][0].set_ylabel("linear CKA of hidden states")
    order = [short(model.label) for model in roster.models.values()]
    gathered(figure, order, loc="outside lower center", ncols=4)
    similarity = results.get("similarity") or {}
    return (
        figure,
        "Likeness of hidden states by layer",
        (
            f"Linear CKA ({similarity.get('estimator') or 'estimator not recorded'}; "
            f"{similarity.get('position') or 'position not recorded'} token; "
            f"{formats.count(similarity.get('prompts'))} prompts) against depth; bars: 95% jackknife "
            "interval over prompts. The shuffled control pairs each prompt with another’s features: it "
            "should lie at 0. High CKA means like features on these prompts, not like answers."
        ),
    )


def _layer(row: dict) -> int:
    return row["layer"]


def _cka_line(axes: Axes, roster: Roster, name: str, rows: list[dict]) -> None:
    model = roster.models[name]
    depth, values = [row["layer"] for row in rows], numbers([row["cka"] for row in rows])
    low, high = numbers([row.get("low") for row in rows]), numbers([row.get("high") for row in rows])
    known = np.isfinite(low) & np.isfinite(high)
    if known.any():
        at = np.array(depth)[known]
        axes.vlines(at, low[known], high[known], color=model.colour, linewidth=0.8, alpha=0.6)
    axes.plot(depth, values, **look(model), markevery=every(len(rows)), label=short(model.label))


def _heat(axes: Axes, values: np.ndarray, depth: list[int], low: float) -> None:
    """One projection's cells, models by layers, with their numbers where there is room."""
    axes.imshow(values, cmap="viridis", vmin=low, vmax=1, aspect="auto")
    step = max(1, math.ceil(len(depth) / 6))
    axes.set_xticks(range(0, len(depth), step), [str(at) for at in depth[::step]])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    if step > 1:
        return
    for (i, j), value in np.ndenumerate(values):
        shown = formats.fixed(float(value), 2) if np.isfinite(value) else formats.MISSING
        colour = "black" if value > 0.4 + 0.6 * low else "white"
        axes.text(j, i, shown, ha="center", va="center", fontsize=6, color=colour)


def projections(results: dict, roster: Roster, canvas: Canvas) -> Made:
    """CKA of each adapted projection's outputs, to the reference, as a heat map a projection."""
    rows = [
        row
        for row in (results.get("similarity") or {}).get("modules") or []
        if other(row, roster.reference) is not None and row.get("cka") is not None and row.get("layer") is not None
    ]
    if not rows:
        return None
    names = roster.order([other(row, roster.reference) or "" for row in rows])
    kinds = sorted({str(row.get("projection")) for row in rows}, key=lambda kind: (_ORDER.find(kind[:1]), kind))
    depth = sorted({row["layer"] for row in rows})
    found = {(other(row, roster.reference), str(row.get("projection")), row["layer"]): row["cka"] for row in rows}
    columns = min(4, len(kinds))
    lines = math.ceil(len(kinds) / columns)
    figure, grid = canvas.grid(PAGE, lines * (0.9 + 0.22 * len(names)), lines, columns, sharey=True)
    low = math.floor(10 * min(0.9, *(row["cka"] for row in rows))) / 10
    for axes, kind in zip(grid.flat, kinds, strict=False):
        values = np.array([[found.get((name, kind, at), math.nan) for at in depth] for name in names])
        _heat(axes, values, depth, low)
        axes.set_title(kind)
        axes.set_yticks(range(len(names)), [short(roster.label(name)) for name in names])
    for axes in grid.flat[len(kinds) :]:
        axes.set_visible(False)
    figure.supxlabel("layer, from the input", fontsize=8)
    bar = figure.colorbar(grid.flat[0].images[0], ax=list(grid.flat), shrink=0.9, pad=0.01)
    bar.set_label(f"CKA to {short(roster.label(roster.reference))}")
    return (
        figure,
        "Likeness at each adapted projection",
        (
            "Linear CKA of the outputs of every adapted projection, each model against "
            f"{roster.label(roster.reference)}, by layer. It locates where features part; it does not say "
            "which of two unlike features is the better one."
        ),
    )
