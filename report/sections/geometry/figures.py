"""Drawings of the updates' geometry: cosines, principal angles, layers, and the course of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from report import formats
from report.model_index import ModelIndex, dimensions, other
from report.plotting import (
    CHANCE,
    PAGE,
    Canvas,
    Made,
    bring_out,
    called,
    every,
    floor_lines,
    gathered,
    layer_axis,
    look,
    numbers,
    same_start,
    shared_range,
    short,
)
from results import Results
from results.weights import ByChance, Geometry, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELLED = 14


def _matrix(geometry: Geometry, names: list[str]) -> np.ndarray:
    """Every pair's cosine; undefined on the diagonal, too, where an update is zero."""
    norms = geometry.norms

    def cosine(a: str, b: str) -> float | None:
        if a == b:
            return 1.0 if norms[a] else None
        return geometry.cosine(a, b)

    return np.array([numbers([cosine(a, b) for b in names]) for a in names])


def cosines(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """All pairs' cosines as a matrix."""
    if results.geometry is None:
        return None
    names = index.order(results.geometry.norms)
    values = _matrix(results.geometry, names)
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
            f"with another {index.drawn.initial} is far from all others, whatever it learned, because its update "
            f"begins in another {index.drawn.side} subspace: read that row as a floor, not as a finding. Of an update "
            "of zero no cosine is defined."
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


_Angle = Callable[[Pair | ByChance], float | None]
_SIDES: dict[str, tuple[_Angle, _Angle]] = {
    "output side (left vectors)": (lambda row: row.angle_min_median_deg, lambda row: row.angle_max_median_deg),
    "input side (right vectors)": (
        lambda row: row.right_angle_min_median_deg,
        lambda row: row.right_angle_max_median_deg,
    ),
}


def _angle_panel(axes: Axes, results: Results, index: ModelIndex, pairs: dict[str, Pair], side: str) -> None:
    smallest, largest = _SIDES[side]
    for floor in floor_lines(results, index, smallest):
        axes.axvline(floor.value, color=floor.colour, linestyle=floor.dashes, linewidth=1.1, label=floor.label)
    names = list(pairs)
    for i, (name, row) in enumerate(pairs.items()):
        low, high = smallest(row), largest(row)
        style = {**look(index.models[name]), "linestyle": "none"}
        if low is not None and high is not None:
            axes.plot([low, high], [i, i], color=style["color"], linewidth=1, alpha=0.55)
            axes.plot([high], [i], **{**style, "marker": "|"})
        if low is not None:
            axes.plot([low], [i], **style)
    axes.set_title(side)
    axes.set_yticks(range(len(names)), [called(index, name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-2, 92)
    axes.set_xticks([0, 15, 30, 45, 60, 75, 90])
    axes.set_xlabel("principal angle, degrees")
    axes.grid(axis="y", visible=False)


def angles(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Smallest and largest principal angle to the reference, output and input side, floors as lines."""
    geometry = results.geometry
    measured = [pair for pair in geometry.pairs if pair.angle_min_median_deg is not None] if geometry else []
    towards = {name: pair for pair in measured if (name := other(pair, index.reference))}
    pairs = {name: towards[name] for name in index.order(towards)}
    if not pairs:
        return None
    figure, grid = canvas.grid(PAGE, 1.5 + 0.2 * len(pairs), 1, len(_SIDES), sharey=True)
    for axes, side in zip(grid[0], _SIDES, strict=True):
        _angle_panel(axes, results, index, pairs, side)
    gathered(figure, columns=3)
    k = dimensions(results, pairs.values())
    return (
        figure,
        f"Principal angles to {index.label(index.reference)}",
        (
            f"Marker: smallest of the {k} principal angles of a module, median over modules; tick at the "
            "line’s end: the largest. Vertical lines: what the smallest angle is for the floors. A largest angle "
            f"near 90° says nothing, since chance gives it too; on the {index.drawn.side} side the shared "
            f"{index.drawn.initial} alone makes the smallest angle small."
        ),
    )


def layers(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Cosine to the reference by layer, a panel a stack of layers."""
    series: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in results.geometry.layers if results.geometry else ():
        name = other(row, index.reference)
        if name is not None and row.cosine is not None:
            series.setdefault(row.stack or "", {}).setdefault(name, []).append((row.layer, row.cosine))
    if not series:
        return None
    figure, (panels,) = canvas.grid(PAGE, 3.0, 1, len(series), sharey=True)
    for axes, (stack, lines) in zip(panels, sorted(series.items()), strict=True):
        for name in index.order(lines):
            points = sorted(lines[name])
            style = look(index.models[name])
            axes.plot(*zip(*points, strict=True), **style, markevery=every(len(points)), label=called(index, name))
        layer_axis(axes, sorted({layer for line in lines.values() for layer, _ in line}))
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


def parting(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Cosine to the reference at the same step, and of each update to its own end, over the steps of training."""
    geometry, reference = results.geometry, index.reference
    if geometry is None:
        return None
    towards: dict[str, list[tuple[int, float]]] = {}
    for pair in geometry.along.pairs:
        name = other(pair, reference)
        if name in index.models and pair.cosine is not None and not _anothers_floor(index, name):
            towards.setdefault(name, []).append((pair.step, pair.cosine))
    onward: dict[str, list[tuple[int, float]]] = {}
    for row in geometry.along.adapters:
        if row.to_end is not None:
            onward.setdefault(row.name, []).append((row.step, row.to_end))
    if not towards or max(map(len, towards.values())) < 2:
        return None
    figure, ((left, right),) = canvas.grid(PAGE, 3.2, 1, 2)
    for axes, series, words in (
        (left, towards, f"cosine to {called(index, reference)}, same step"),
        (right, onward, "cosine to its own end"),
    ):
        _courses(axes, series, index)
        axes.set_ylabel(words)
    shared_range((left, right), "y")
    for axes in (left, right):
        bring_out(axes, index)
    chance = geometry.chance.shared_a.cosine
    if chance is not None:
        left.axhline(chance, color=CHANCE, linestyle="--", linewidth=1, label=same_start(index))
    gathered(figure, [called(index, name) for name in index.models])
    return (
        figure,
        "When do two methods part?",
        (
            f"Left: cosine of each update to {index.label(reference)}’s at the same optimiser step; grey: the floors, "
            f"{index.label(reference)} itself with another order of rows or {index.by_chance.initial}. A method "
            "that leaves the floor of another order has parted. Right: how soon each update points where it ends."
        ),
    )


def _anothers_floor(index: ModelIndex, name: str) -> bool:
    """Whether it repeats another method than the reference: its cosine to the reference is no floor."""
    model, reference = index.models[name], index.models.get(index.reference or "")
    return model.role in ("order", "init", "cell") and reference is not None and model.method != reference.method


def _courses(axes: Axes, series: dict[str, list[tuple[int, float]]], index: ModelIndex) -> None:
    for name in index.order(list(series)):
        model, course = index.models[name], sorted(series[name])
        axes.plot(*zip(*course, strict=True), **look(model), markevery=every(len(course)), label=called(index, name))
    axes.set_xlabel("optimiser step")
    axes.locator_params(axis="x", integer=True)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 1.02))
