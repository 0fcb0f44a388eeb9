"""The trainings: what each was given and did, its loss, and how far its factors went."""

from __future__ import annotations

import math

import numpy as np

from report import (
    formats,
    typed_soon,  # typed soon
)
from report.model_index import ModelIndex
from report.plotting import FLOOR, PAGE, Canvas, Made, bring_out, called, gathered, log_axis, look, numbers
from report.section import Section, from_results, rows_at, unrolled
from report.tables import Cell, Column, Table, failed, number, records  # typed soon
from report.typed_soon import named, tint  # typed soon

_MOST_POINTS = 400


def _with_failures(table: Table | None, index: ModelIndex, title: str) -> Table | None:
    errors = [model for model in index.models.values() if model.error]
    if table is None:
        if not errors:
            return None
        columns = (Column("Training", kind="text"), Column("", kind="text"))
        lines = tuple(failed(model.label, model.error, 2) for model in errors)
        return Table(title, "Trainings", columns, lines, "No training finished.")
    lines = tuple(failed(model.label, model.error, len(table.columns)) for model in errors)
    return Table(table.key, table.title, table.columns, (*table.lines, *lines), table.caption, table.folded)


def _done(results: dict, index: ModelIndex) -> list[dict]:
    return typed_soon.in_order(index, [row for row in results["trainings"] if row["status"] != "failed"])  # typed soon


def seen_table(results: dict, index: ModelIndex) -> Table | None:
    """What each training was given: the columns on which two trainings can be called matched."""
    table = records(
        "trainings-given",
        "What each training was given",
        _done(results, index),
        [
            named(index, "Training"),
            (Column("Learning rate", "peak"), lambda row: number(formats.rate(row.get("learning_rate")))),
            (Column("Steps", "at the report"), lambda row: number(formats.count(row.get("report_step")))),
            (Column("Rows seen"), lambda row: number(formats.count(row.get("rows_seen")))),
            (Column("Tokens seen"), lambda row: number(formats.count(row.get("tokens_seen")))),
            (Column("Distinct problems"), lambda row: number(formats.count(row.get("distinct_problems")))),
            (Column("Distinct rows"), lambda row: number(formats.count(row.get("distinct_rows")))),
            (Column("Epochs", "of its view"), lambda row: number(formats.significant(row.get("epochs")))),
            (Column("Init seed"), lambda row: number(str(row["init_seed"]) if "init_seed" in row else "–")),
            (
                Column("Order seed"),
                lambda row: number(str(row["order_seed"]) if "order_seed" in row else "–"),
            ),
        ],
        "Equal steps are not equal data: read a comparison of two methods against the column on which "
        "they are matched. Tokens are completion tokens that entered the loss.",
        kind=lambda row: tint(index, row),
    )
    return _with_failures(table, index, "trainings-given")


def _noise(row: dict) -> Cell:
    """How many steps had no gradient that float32 can tell, and whether the update is noise for it."""
    steps = row.get("noise_steps")
    return number(formats.count(steps) + (": noise" if row.get("noise") else ""))


def moved_table(results: dict, index: ModelIndex) -> Table | None:
    """What each training did: loss, clipping, and how far the factors went."""
    table = records(
        "trainings-did",
        "What each training did",
        _done(results, index),
        [
            named(index, "Training"),
            (Column("Loss, first step"), lambda row: number(formats.significant(row.get("loss_first")))),
            (Column("Loss, reported step"), lambda row: number(formats.significant(row.get("loss_last")))),
            (Column("Clipped steps"), lambda row: number(formats.percent(row.get("clip_rate"), 0))),
            (
                Column("A moved", "‖A−A₀‖ / ‖A₀‖"),
                lambda row: number(formats.significant(row.get("a_moved_rel"))),
            ),
            (Column("‖B‖", "from zero"), lambda row: number(formats.significant(row.get("b_norm")))),
            (
                Column("Gradient from wrong rows", "mean share"),
                lambda row: number(formats.percent(row.get("gradient_wrong"), 0)),
            ),
            (
                Column("Pushed rows", "nats a token, first → last"),
                lambda row: number(
                    f"{formats.significant(row.get('nll_pushed_first'))} → "
                    f"{formats.significant(row.get('nll_pushed_last'))}"
                    if row.get("nll_pushed_last") is not None
                    else formats.MISSING
                ),
            ),
            (Column("Logged KL", "base ‖ adapted"), lambda row: number(formats.significant(row.get("heldout_kl")))),
            (Column("Equal pairs", "left out"), lambda row: number(formats.count(row.get("equal_pairs")))),
            (Column("Steps on rounding", "gradient at its floor"), _noise),
        ],
        "Losses of different objectives are not on one scale: compare a method with itself only. Where "
        "most steps are clipped, the gradient’s size is lost and rate × steps decides the norm. The gradient "
        "is that at the log-probabilities of the step’s tokens. Pushed rows are those that a step makes less "
        "likely: where their nats rise and rise, the objective has no bound. The logged KL(base ‖ adapted) is exact, a "
        f"token of the first {_watched(results)}held-out rollouts, right and wrong as they come; the KL beside the "
        "held-out losses is over other rows, as many right as wrong ones, so the two are two numbers. Adam makes as "
        "long a step out of rounding as out of a gradient: where half of the steps or more had a gradient that the "
        "rounding of float32 alone may leave, the update is noise.",
        kind=lambda row: tint(index, row),
    )
    return _with_failures(table, index, "trainings-did")


def _watched(results: dict) -> str:
    """How many held-out rows a training looks at, where the settings tell."""
    rows = ((results.get("study") or {}).get("settings") or {}).get("training.probe_rows")
    return f"{formats.count(rows)} " if rows else ""


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
    return typed_soon.in_order(index, [row for row in results.get("curves") or [] if row["step"]])  # typed soon


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


def _curve_rows(results: dict) -> list[dict]:
    lists = ("step", "loss", "grad_norm", "learning_rate", "a_moved_rel", "b_norm")
    return unrolled(results.get("curves") or [], ("name",), lists)


SECTION = Section(
    key="trainings",
    title="The trainings",
    step="train",
    tables=from_results(seen_table, moved_table),
    figures={"curves": curves, "growth": growth},
    csv={"trainings": rows_at("trainings"), "curves": _curve_rows},
    in_comparison=False,
)
