"""Drawings of the updates' geometry: cosines, principal angles, layers, and the course of training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from report import formats
from report.model_index import ModelIndex  # typed soon
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
    shared_range,
    short,
)
from report.typed_soon import dimensions, other, pair  # typed soon

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELLED = 14


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
    for words, dashes, colour, value in floor_lines(results, index, f"{side}angle_min_median_deg"):
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


def parting(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Cosine to the reference at the same step, and of each update to its own end, over the steps of training."""
    found = (results.get("geometry") or {}).get("along") or {}
    reference = index.reference
    towards: dict[str, list[tuple[int, float]]] = {}
    for row in found.get("pairs") or []:
        name = other(row, reference)
        if name is not None and row.get("cosine") is not None and not _anothers_floor(index, name):
            towards.setdefault(name, []).append((row["step"], row["cosine"]))
    onward: dict[str, list[tuple[int, float]]] = {}
    for row in found.get("adapters") or []:
        if row.get("to_end") is not None:
            onward.setdefault(row["name"], []).append((row["step"], row["to_end"]))
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
    chance = (((results.get("geometry") or {}).get("chance") or {}).get("shared_a") or {}).get("cosine")
    if chance is not None:
        left.axhline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance, same initial A")
    gathered(figure, [called(index, name) for name in index.models])
    return (
        figure,
        "When do two methods part?",
        (
            f"Left: cosine of each update to {index.label(reference)}’s at the same optimiser step; grey: the floors, "
            f"{index.label(reference)} itself with another order of rows or another initial A. A method that leaves "
            "the floor of another order has parted. Right: how soon each update points where it ends."
        ),
    )


def _anothers_floor(index: ModelIndex, name: str) -> bool:
    """Whether it repeats another method than the reference: its cosine to the reference is no floor."""
    model, reference = index.models[name], index.models.get(index.reference or "")
    return model.role in ("order", "init") and reference is not None and model.method != reference.method


def _courses(axes: Axes, series: dict[str, list[tuple[int, float]]], index: ModelIndex) -> None:
    for name in index.order(list(series)):
        model, course = index.models[name], sorted(series[name])
        axes.plot(*zip(*course, strict=True), **look(model), markevery=every(len(course)), label=called(index, name))
    axes.set_xlabel("optimiser step")
    axes.locator_params(axis="x", integer=True)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 1.02))
