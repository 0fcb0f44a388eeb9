"""Drawings of the updates: direction against size, angles, layers, paths.

Each returns (figure, title, caption), or None where nothing was measured.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from report import formats, headline
from report.model_index import ModelIndex, dimensions, other, pair
from report.plotting import (
    COLUMN,
    FLOOR,
    PAGE,
    Canvas,
    Made,
    bring_out,
    called,
    gathered,
    log_axis,
    look,
    numbers,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOOR_LINES = {"order": "-.", "init": ":", "learning_rate": (0, (6, 2))}
_CHANCE_LINES = {"shared_a": ("chance, same initial A", "--"), "ambient": ("chance, random", (0, (1, 3)))}
CHANCE = "#A0522D"
LAYER = "layer, from 0 at the input"
EMBEDDINGS = "emb."  # where the hidden states of a layer would be, what comes before layer 0
_MOST_PATHS = 12
_MOST_LABELLED = 14


def _floor_values(results: dict, index: ModelIndex, key: str) -> list[tuple[str, object, str, float]]:
    """(words, dashes, colour, value) of every floor that was measured for one column."""
    geometry = results.get("geometry") or {}
    found: list[tuple[str, object, str, float]] = []
    for kind, entry in headline.pairs_of_floors(results):
        value, replica = entry.get(key), other(entry, index.reference)
        if kind in _FLOOR_LINES and value is not None and replica is not None:
            found.append((floor_words(index, replica), _FLOOR_LINES[kind], FLOOR, value))
    for name, (words, dashes) in _CHANCE_LINES.items():
        value = ((geometry.get("chance") or {}).get(name) or {}).get(key)
        if value is not None:
            found.append((words, dashes, CHANCE, value))
    return found


def floor_words(index: ModelIndex, replica: str) -> str:
    """What the line of a floor is called: by the training that it comes from."""
    return f"floor: {called(index, replica)}"


def step_size(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Cosine to the reference against norm: a mere step size would move a point sideways only."""
    rows = [row for row in headline.rows(results, index) if row.kind in ("reference", "method", "matched", "floor")]
    points = [(row.name, row.norm, row.cosine) for row in rows if row.to_reference and row.name in index.models]
    for row in (results.get("sweep") or {}).get("points") or []:
        if row.get("name") not in {point[0] for point in points}:
            points.append((row.get("name"), row.get("norm"), row.get("cosine_to_sft")))
    points = [(name, norm, cosine) for name, norm, cosine in points if name and norm and cosine is not None]
    if len(points) < 2:
        return None
    figure, ((axes,),) = canvas.grid(PAGE, 3.2)
    floors = _floor_values(results, index, "cosine")
    for words, dashes, colour, value in floors:
        axes.axhline(value, color=colour, linestyle=dashes, linewidth=1, label=words)
    along = sorted((norm, cosine) for name, norm, cosine in points if _swept(results, name))
    if len(along) > 1:
        axes.plot(*zip(*along, strict=True), color="#D55E00", linewidth=0.8, alpha=0.6, zorder=1)
    for name, norm, cosine in dict.fromkeys(points):
        model = index.models[name]
        axes.plot([norm], [cosine], **{**look(model), "linestyle": "none"}, markersize=7, label=called(index, name))
    norms = [norm for _, norm, _ in points if norm]
    log_axis(axes, "x", min(norms) / 1.35, max(norms) * 1.35)
    axes.set_xlabel("norm of the update, ‖ΔW‖ (log scale)")
    axes.set_ylabel(f"cosine to {called(index, index.reference)}")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.04), max(high, 1.04))
    bring_out(axes, index)
    order = [words for words, *_ in floors] + [called(index, name) for name in index.models]
    gathered(figure, order, beside=True)
    reference = index.label(index.reference)
    return (
        figure,
        "Direction against size",
        (
            f"Each update’s cosine to {reference}’s against its norm, over all adapted modules. Were a "
            f"method {reference} with another step size, its point would lie beside that of another order "
            "of rows, moved sideways only. The thin line joins one method’s learning rates. One training "
            "a point; a wide open marker has another one on it."
        ),
    )


def _swept(results: dict, name: str | None) -> bool:
    return name in {row.get("name") for row in (results.get("sweep") or {}).get("points") or []}


def _matrix(results: dict, names: list[str]) -> np.ndarray:
    """Every pair's cosine; undefined on the diagonal, too, where an update is zero."""
    norms = {row.get("name"): row.get("norm") for row in (results.get("geometry") or {}).get("adapters") or []}
    values = np.full((len(names), len(names)), math.nan)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            itself = None if norms.get(a) == 0 else 1.0
            value = itself if i == j else pair(results, a, b).get("cosine")
            values[i, j] = math.nan if value is None else value
    return values


def cosines(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """All pairs' cosines as a matrix."""
    adapters = (results.get("geometry") or {}).get("adapters") or []
    names = index.order([row.get("name") for row in adapters])
    values = _matrix(results, names)
    if len(names) < 2 or not np.isfinite(values[~np.eye(len(names), dtype=bool)]).any():
        return None
    size = min(PAGE, 2.2 + 0.42 * len(names))
    figure, ((axes,),) = canvas.grid(size, size * 0.86)
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    labels = [called(index, name) for name in names]
    letters = min(7.5, 300 / len(names))  # points: many names must not run into each other
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=letters)
    axes.set_yticks(range(len(names)), labels, fontsize=letters)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(names) <= _MOST_LABELLED:
        _write(axes, values, dark=0.6)
    bar = figure.colorbar(image, ax=axes, shrink=0.75)
    bar.set_label("cosine of the stacked updates")
    return (
        figure,
        "Cosine of every pair",
        (
            "Cosine of the stacked updates of two models, over all adapted modules; −1 to 1, no unit. A run "
            "with another initial A is far from all others, whatever it learned, because its update begins in "
            "another input subspace: read that row as a floor, not as a finding. Of an update of zero no cosine "
            "is defined."
        ),
    )


def _write(axes: Axes, values: np.ndarray, dark: float, size: float = 6.5) -> None:
    """The numbers into a heat map's cells, white where the cell's magnitude is beyond ``dark``."""
    for i, j in np.ndindex(values.shape):
        value = values[i, j]
        if np.isfinite(value):
            shown = formats.cosine(float(value), 2)
            axes.text(
                j,
                i,
                shown,
                ha="center",
                va="center",
                fontsize=size,
                color="white" if abs(value) > dark else "black",
            )
        else:
            axes.text(j, i, formats.MISSING, ha="center", va="center", fontsize=size, color="#777777")


def _angle_panel(axes: Axes, results: dict, index: ModelIndex, names: list[str], side: str) -> None:
    for words, dashes, colour, value in _floor_values(results, index, f"{side}angle_min_median_deg"):
        axes.axvline(value, color=colour, linestyle=dashes, linewidth=1.1, label=words)
    for i, name in enumerate(names):
        row = pair(results, name, index.reference or "")
        low, high = row.get(f"{side}angle_min_median_deg"), row.get(f"{side}angle_max_median_deg")
        style = {**look(index.models[name]), "linestyle": "none"}
        if low is not None and high is not None:
            axes.plot([low, high], [i, i], color=style["color"], linewidth=1, alpha=0.55)
            axes.plot([high], [i], **{**style, "marker": "|"})
        if low is not None:
            axes.plot([low], [i], **style)
    axes.set_yticks(range(len(names)), [called(index, name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-2, 92)
    axes.set_xticks([0, 15, 30, 45, 60, 75, 90])
    axes.set_xlabel("principal angle, degrees")
    axes.grid(axis="y", visible=False)


def angles(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Smallest and largest principal angle to the reference, output and input side, floors as lines."""
    keys = {"": "output side (left vectors)", "right_": "input side (right vectors)"}
    reference = index.reference or ""
    names = [name for name in index.models if pair(results, name, reference).get("angle_min_median_deg") is not None]
    if not names:
        return None
    measured = [pair(results, name, reference) for name in names]
    sides = [side for side in keys if any(row.get(f"{side}angle_min_median_deg") is not None for row in measured)]
    figure, grid = canvas.grid(PAGE, 1.5 + 0.2 * len(names), 1, len(sides), sharey=True)
    for axes, side in zip(grid[0], sides, strict=True):
        _angle_panel(axes, results, index, names, side)
        axes.set_title(keys[side])
    gathered(figure, columns=3)
    k = dimensions(results, measured)
    return (
        figure,
        f"Principal angles to {index.label(index.reference)}",
        (
            f"Marker: smallest of the {k or 'top'} principal angles of a module, median over modules; tick at the "
            "line’s end: the largest. Vertical lines: what the smallest angle is for the floors. A largest angle "
            "near 90° says nothing, since chance gives it too; on the input side the shared initial A alone "
            "makes the smallest angle small."
        ),
    )


def layers(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Cosine to the reference by layer, a panel a stack of layers."""
    series: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in (results.get("geometry") or {}).get("layers") or []:
        name = other(row, index.reference)
        if name is not None and row.get("cosine") is not None and row.get("layer") is not None:
            held = series.setdefault(row.get("stack") or "", {})
            held.setdefault(name, []).append((row["layer"], row["cosine"]))
    if not series:
        return None
    figure, (panels,) = canvas.grid(PAGE, 3.0, 1, len(series), sharey=True)
    for axes, (stack, lines) in zip(panels, sorted(series.items()), strict=True):
        for name in index.order(lines):
            found = sorted(lines[name])
            style = look(index.models[name])
            axes.plot(*zip(*found, strict=True), **style, markevery=every(len(found)), label=called(index, name))
        layer_axis(axes, sorted({layer for found in lines.values() for layer, _ in found}))
        axes.set_title(short(stack, 40))
    panels[0].set_ylabel(f"cosine to {called(index, index.reference)}")
    for axes in panels:
        bring_out(axes, index)
    gathered(figure, beside=True)
    return (
        figure,
        f"Cosine to {index.label(index.reference)} by layer",
        (
            "Cosine of the updates of one layer’s modules, stacked, against depth; layers count from 0, as in the "
            "modules’ names. The axis is that of the values here. Grey lines are the floors, layer by layer; a wide "
            "open line has another one on it. A low cosine in a layer whose update is small carries little weight in "
            "the global cosine."
        ),
    )


def every(length: int) -> int:
    """How many points stand between two markers, so that a long line carries about twelve."""
    return max(1, length // 12)


def layer_axis(axes: Axes, found: list[int]) -> None:
    """An axis over the layers ``found``, at most about twelve of them labelled."""
    step = max(1, math.ceil(len(found) / 12))
    axes.set_xticks(found[::step], [EMBEDDINGS if at < 0 else str(at) for at in found[::step]])
    axes.set_xlabel(LAYER)


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
