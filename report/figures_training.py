"""Drawings of the trainings, the sweep and the accuracies. Each returns (figure, title, caption), or None."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from report import formats, headline
from report.figures_weights import floor_words
from report.model_index import BASE, ModelIndex, distinct, other
from report.plotting import (
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
    rate_axis,
    shared_range,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 400


def accuracy(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Accuracy with its interval, a panel a task, the base as a band."""
    tasks = [
        task
        for task in (results.get("evaluation") or {}).get("tasks") or []
        if any(row.get("accuracy") is not None for row in task.get("models") or [])
    ]
    if not tasks:
        return None
    names = index.order([row.get("name") for task in tasks for row in task.get("models") or []])
    height = 0.7 + 0.21 * len(names)
    figure, grid = canvas.grid(PAGE if len(tasks) > 1 else 4.6, height, 1, len(tasks), sharey=True)
    for axes, task in zip(grid[0], tasks, strict=True):
        rows = {row.get("name"): row for row in task.get("models") or []}
        _base_band(axes, rows.get(BASE) or {})
        for i, name in enumerate(names):
            row = rows.get(name) or {}
            if row.get("accuracy") is None:
                continue
            value = 100 * row["accuracy"]
            low = 100 * (row["low"] if row.get("low") is not None else row["accuracy"])
            high = 100 * (row["high"] if row.get("high") is not None else row["accuracy"])
            style = {**look(index.models[name]), "linestyle": "none"}
            if name == BASE:
                style["marker"] = "o"
            axes.plot([low, high], [i, i], color=style["color"], linewidth=1.1)
            axes.plot([value], [i], **style)
        axes.set_yticks(range(len(names)), [called(index, name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel("right, % (bar: 95% interval)")
        axes.set_title(f"{short(str(task.get('title') or task.get('task')), 40)}, n = {formats.count(task.get('n'))}")
        axes.grid(axis="y", visible=False)
    shared_range(grid[0], "x")
    return (
        figure,
        "Accuracy, base included",
        (
            "Share of answers that are right, mean over problems. Bars: 95% interval over problems; "
            "grey band: the base’s. Overlapping bars do not settle a comparison: both models met the same "
            "problems, so read the paired tests. The bar holds no variation between trainings."
        ),
    )


def _base_band(axes: Axes, base: dict) -> None:
    if base.get("accuracy") is None:
        return
    if base.get("low") is not None and base.get("high") is not None:
        axes.axvspan(100 * base["low"], 100 * base["high"], color="#ededed", linewidth=0, zorder=0)
    axes.axvline(100 * base["accuracy"], color="#000000", linewidth=0.7, zorder=1)


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbouring steps where a curve has more points than a figure can show."""
    size = math.ceil(len(steps) / _MOST_POINTS)
    if size <= 1:
        return steps, values
    kept = len(steps) // size * size
    return steps[:kept].reshape(-1, size).mean(axis=1), values[:kept].reshape(-1, size).mean(axis=1)


def _running(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over a centred window, narrower at the ends, gaps left out."""
    half = width // 2
    result = np.full(len(values), math.nan)
    for i in range(len(values)):
        near = values[max(0, i - half) : i + half + 1]
        near = near[np.isfinite(near)]
        if len(near) and np.isfinite(values[i]):
            result[i] = near.mean()
    return result


def _curves(results: dict, index: ModelIndex) -> list[dict]:
    rows = {row.get("name"): row for row in results.get("curves") or [] if row.get("step")}
    return [rows[name] for name in index.order(rows)]


def _points(row: dict, key: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = numbers(row.get("step")), numbers(row.get(key))
    length = min(len(steps), len(values))
    return _thin(steps[:length], values[:length])


def curves(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Loss against step, one small panel a training, each on its own scale."""
    rows = _curves(results, index)
    if not rows:
        return None
    columns = min(4, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure, grid = canvas.grid(PAGE if columns > 2 else 4.6, 0.35 + 1.2 * lines, lines, columns)
    reported = {row.get("name"): row.get("report_step") for row in results.get("trainings") or []}
    for axes, row in zip(grid.flat, rows, strict=False):
        model = index.models[row["name"]]
        steps, values = _points(row, "loss")
        axes.plot(steps, values, color=model.colour, linewidth=0.5, alpha=0.4)
        axes.plot(steps, _running(values, max(3, len(values) // 12)), color=model.colour, linewidth=1.5)
        stop = reported.get(row["name"])
        if stop and len(steps) and stop < steps[-1]:
            axes.axvline(stop, color=FLOOR, linewidth=0.7, linestyle=":")
        title = f"{called(index, model.name)} (failed)" if model.error else called(index, model.name)
        axes.set_title(title, color="#A02000" if model.error else "black", fontsize=8)
        axes.locator_params(nbins=4)
        axes.tick_params(labelsize=6.5)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("optimiser step", fontsize=8)
    figure.supylabel("training loss (own unit, own scale)", fontsize=8)
    return (
        figure,
        "Training loss",
        (
            "Loss of each training’s own objective against optimiser step: thin, as logged; thick, a running "
            "mean; dotted, the reported step where training went on. The objectives have different units "
            "(nats a token, a weighted sum, a pair’s logistic loss), so the panels’ heights cannot be "
            "compared, only their shapes."
        ),
    )


def growth(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """How far the factors move along training: ‖B‖, ‖A − A0‖ / ‖A0‖ and the gradient's norm."""
    panels = [
        ("b_norm", "‖B‖", False),
        ("a_moved_rel", "‖A − A₀‖ / ‖A₀‖", False),
        ("grad_norm", "gradient norm, before clipping", True),
    ]
    rows = _curves(results, index)
    shown = [panel for panel in panels if any(np.isfinite(numbers(row.get(panel[0]))).any() for row in rows)]
    if not shown:
        return None
    figure, grid = canvas.grid(PAGE, 2.9, 1, len(shown))
    for axes, (key, title, logarithmic) in zip(grid[0], shown, strict=True):
        for row in rows:
            model = index.models[row["name"]]
            if logarithmic and model.role != "method":
                continue
            steps, values = _points(row, key)
            if logarithmic:
                values = _running(values, max(3, len(values) // 6))
            if logarithmic:
                values = np.where(values > 0, values, math.nan)
            style = {**look(model), "marker": model.marker if len(steps) < 3 else ""}
            axes.plot(steps, values, label=called(index, model.name), **style)
        heights = np.array([value for line in axes.lines for value in np.asarray(line.get_ydata(), dtype=float)])
        heights = heights[np.isfinite(heights)]
        if logarithmic and len(heights):
            log_axis(axes, "y", float(heights.min()) / 1.15, float(heights.max()) * 1.15)
        axes.set_title(title)
        axes.set_xlabel("optimiser step")
        axes.locator_params(axis="x", nbins=4)
        bring_out(axes, index)
    gathered(figure)
    return (
        figure,
        "How far the factors go",
        (
            "Norm of B (from zero), relative way of A from its start, and the gradient’s norm (methods at "
            "their own rate, running mean, log scale) against optimiser step. Lines that coincide for "
            "unlike objectives, the one below drawn wider, are Adam’s step size at work; they say nothing about "
            "direction."
        ),
    )


def sweep(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Norm, cosine to the reference and accuracy against one method's learning rate."""
    found = results.get("sweep") or {}
    points = [row for row in found.get("points") or [] if row.get("learning_rate")]
    points.sort(key=lambda row: row["learning_rate"])
    if not points:
        return None
    rates = [row["learning_rate"] for row in points]
    method = index.models.get(found.get("method") or points[0].get("name"))
    colour = method.colour if method else "#D55E00"
    figure, (panels,) = canvas.grid(PAGE, 2.9, 1, 3)
    for axes in panels:
        if found.get("matched_learning_rate"):
            axes.axvline(found["matched_learning_rate"], color="#0072B2", linewidth=3, alpha=0.22, label="matched rate")
        rate_axis(axes, rates)
        for row in points:
            model = index.models.get(row.get("name") or "")
            if model and model.error:
                axes.text(row["learning_rate"], 0.04, "failed", transform=axes.get_xaxis_transform(),
                          rotation=90, ha="center", va="bottom", fontsize=7, color="#A02000")  # fmt: skip
    line = {
        "color": colour,
        "marker": "P",
        "label": f"{called(index, found.get('method') or 'swept method')}, norm and cosine",
    }
    _norm_panel(panels[0], points, line, results, index)
    _cosine_panel(panels[1], points, line, results, index)
    _accuracy_panel(panels[2], points, colour, results)
    gathered(figure, columns=3)
    title = f"{index.label(found.get('method') or 'the swept method')} along its learning rate"
    return (
        figure,
        title,
        (
            "One training a point, the same number of steps. Blue band: the rate of the other methods. "
            f"Grey lines: floors ({index.label(index.reference)} again, with another order of rows or initial A), "
            "the base’s accuracy, and in the first panel the norm in proportion to the rate, drawn "
            "through the smallest rate: what Adam gives if every step goes the same way. A gap in a line "
            "is a training that failed."
        ),
    )


def _norm_panel(axes: Axes, points: list[dict], line: dict, results: dict, index: ModelIndex) -> None:
    rates, norms = (
        numbers([row["learning_rate"] for row in points]),
        numbers([row.get("norm") for row in points]),
    )
    axes.plot(rates, norms, **line)
    good = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    if len(good):
        null = norms[good[0]] * rates / rates[good[0]]
        axes.plot(rates, null, color=FLOOR, linestyle="--", label="norm in proportion to rate")
        reference = headline.reference_norm(results, index)
        seen = [*norms[good], *null, *([reference] if reference else [])]
        log_axis(axes, "y", min(seen) / 1.4, max(seen) * 1.4)
        if reference:
            axes.axhline(
                reference,
                color="#0072B2",
                linewidth=0.9,
                label=f"{called(index, index.reference)}’s norm",
            )
    axes.set_ylabel("‖ΔW‖ (log scale)")


def _cosine_panel(axes: Axes, points: list[dict], line: dict, results: dict, index: ModelIndex) -> None:
    rates = numbers([row["learning_rate"] for row in points])
    axes.plot(rates, numbers([row.get("cosine_to_sft") for row in points]), **line)
    styles = {"order": "-.", "init": ":"}
    for kind, entry in headline.pairs_of_floors(results):
        value, replica = entry.get("cosine"), other(entry, index.reference)
        if kind in styles and value is not None and replica is not None:
            axes.axhline(value, color=FLOOR, linestyle=styles[kind], linewidth=1, label=floor_words(index, replica))
    axes.set_ylabel(f"cosine to {called(index, index.reference)}")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0) - 0.03, max(high, 1.03))


def _accuracy_panel(axes: Axes, points: list[dict], colour: str, results: dict) -> None:
    rates = numbers([row["learning_rate"] for row in points])
    tasks = list(dict.fromkeys(task for row in points for task in row.get("accuracy") or {}))
    names = distinct(tasks, lambda task: short(headline.task_title(results, task), 28))
    for i, task in enumerate(tasks):
        name, marker, dashes = names[task], "Po^Dv"[i % 5], ("-", "--", ":", "-.")[i % 4]
        values = 100 * numbers([(row.get("accuracy") or {}).get(task) for row in points])
        axes.plot(rates, values, color=colour, marker=marker, linestyle=dashes, label=f"right, {name}")
        base = headline.verdict(results, task, BASE).get("accuracy")
        if base is not None:
            axes.axhline(100 * base, color="#000000", linewidth=0.7, linestyle=dashes, label=f"base, {name}")
    axes.set_ylabel("right, %")
