"""The trainings: what each was given and did, its loss, and how far its factors went."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from report import formats
from report.model_index import ModelIndex
from report.plotting import FLOOR, PAGE, Canvas, Made, bring_out, called, gathered, log_axis, look, numbers
from report.section import Records, Section, from_results
from report.tables import Cell, Column, Table, named, number, records, tint, with_failures
from results import Results, dump
from results.trainings import AnyTraining, Curve, Trained

Columns = list[tuple[Column, Callable[[AnyTraining], Cell]]]
_MOST_POINTS = 400
_GRADIENT = "gradient norm, before clipping"


def _table(key: str, title: str, columns: Columns, caption: str, results: Results, index: ModelIndex) -> Table | None:
    """A row for each training that did not fail; below them those that did, and why."""
    rows = index.in_order(row for row in results.trainings if row.status != "failed")
    if table := records(key, title, rows, columns, caption, kind=lambda row: tint(index, row)):
        return with_failures(table, index)
    if not results.trainings:
        return None
    headings = (Column("Training", kind="text"), Column("", kind="text"))
    return with_failures(Table(key, "Trainings", headings, (), "No training finished."), index)


def _of(cell: Callable[[Trained], Cell]) -> Callable[[AnyTraining], Cell]:
    """A cell of the course of a training: nothing is known of one that did not run."""
    return lambda row: cell(row) if isinstance(row, Trained) else number(formats.MISSING)


def seen_table(results: Results, index: ModelIndex) -> Table | None:
    """What each training was given: the columns on which two trainings can be called matched."""
    columns: Columns = [
        named(index, "Training"),
        (Column("Learning rate", "peak"), lambda row: number(formats.rate(row.learning_rate))),
        (Column("Steps", "at the report"), _of(lambda row: number(formats.count(row.report_step)))),
        (Column("Rows seen"), _of(lambda row: number(formats.count(row.rows_seen)))),
        (Column("Tokens seen"), _of(lambda row: number(formats.count(row.tokens_seen)))),
        (Column("Distinct problems"), _of(lambda row: number(formats.count(row.distinct_problems)))),
        (Column("Distinct rows"), _of(lambda row: number(formats.count(row.distinct_rows)))),
        (Column("Epochs", "of its view"), _of(lambda row: number(formats.significant(row.epochs)))),
        (Column("Init seed"), lambda row: number(str(row.init_seed))),
        (Column("Order seed"), lambda row: number(str(row.order_seed))),
    ]
    caption = (
        "Equal steps are not equal data: read a comparison of two methods against the column on which "
        "they are matched. Tokens are completion tokens that entered the loss."
    )
    return _table("trainings-given", "What each training was given", columns, caption, results, index)


def _noise(row: Trained) -> Cell:
    """How many steps had no gradient that float32 can tell, and whether the update is noise for it."""
    return number(formats.count(row.noise_steps) + (": noise" if row.noise else ""))


def _pushed(row: Trained) -> Cell:
    if row.nll_pushed_last is None:
        return number(formats.MISSING)
    return number(f"{formats.significant(row.nll_pushed_first)} → {formats.significant(row.nll_pushed_last)}")


def moved_table(results: Results, index: ModelIndex) -> Table | None:
    """What each training did: loss, clipping, and how far the factors went."""
    columns: Columns = [
        named(index, "Training"),
        (Column("Loss, first step"), _of(lambda row: number(formats.significant(row.loss_first)))),
        (Column("Loss, reported step"), _of(lambda row: number(formats.significant(row.loss_last)))),
        (Column("Clipped steps"), _of(lambda row: number(formats.percent(row.clip_rate, 0)))),
        (
            Column(f"{index.drawn.letter} moved", index.drawn.moved),
            _of(lambda row: number(formats.significant(row.a_moved_rel))),
        ),
        (Column(f"‖{index.drawn.zero}‖", "from zero"), _of(lambda row: number(formats.significant(row.b_norm)))),
        (
            Column("Gradient from wrong rows", "mean share"),
            _of(lambda row: number(formats.percent(row.gradient_wrong, 0))),
        ),
        (Column("Pushed rows", "nats a token, first → last"), _of(_pushed)),
        (Column("Logged KL", "base ‖ adapted"), _of(lambda row: number(formats.significant(row.heldout_kl)))),
        (Column("Equal pairs", "left out"), _of(lambda row: number(formats.count(row.equal_pairs)))),
        (Column("Steps on rounding", "gradient at its floor"), _of(_noise)),
    ]
    caption = (
        "Losses of different objectives are not on one scale: compare a method with itself only. Where "
        "most steps are clipped, the gradient’s size is lost and rate × steps decides the norm. The gradient "
        "is that at the log-probabilities of the step’s tokens. Pushed rows are those that a step makes less "
        "likely: where their nats rise and rise, the objective has no bound. The logged KL(base ‖ adapted) is exact, a "
        f"token of the first {_watched(results)}held-out rollouts, right and wrong as they come; the KL beside the "
        "held-out losses is over other rows, as many right as wrong ones, so the two are two numbers. Adam makes as "
        "long a step out of rounding as out of a gradient: where half of the steps or more had a gradient that the "
        "rounding of float32 alone may leave, the update is noise."
    )
    return _table("trainings-did", "What each training did", columns, caption, results, index)


def way_table(results: Results, index: ModelIndex) -> Table | None:
    """The way of each training beside that of full steps, what of it was undone, and the signal in its gradient."""
    undone = {c.name: dict(zip(c.step, c.undone, strict=True)) for c in results.curves or () if c.undone}

    def halfway(row: Trained) -> Cell:
        return number(formats.percent(undone.get(row.name, {}).get((row.report_step + 1) // 2)), "not logged")

    columns: Columns = [
        named(index, "Training"),
        (Column("Way", "of full steps"), _of(lambda row: number(formats.percent(row.path_ratio), "not logged"))),
        (Column("Undone", "of the way"), _of(lambda row: number(formats.percent(row.undone), "not logged"))),
        (Column("Undone", "of its first half"), _of(halfway)),
        (Column("Signal", "in the last gradients"), _of(lambda row: number(formats.percent(row.signal), "not logged"))),
    ]
    caption = (
        "With Adam a norm is above all learning rate × steps. Full steps move every element of A and B by the learning "
        "rate; the way is the root mean square over elements of all they moved, beside that. Undone: 1 − ‖sum of the "
        "steps‖ / ‖sum of their absolute values‖, 0 for a straight way and 100% for one there and back; the two "
        "together are what a norm of rate × steps lacks. Signal: the share of the gradient’s power that is its running "
        "mean’s (Adam’s), 100% for a constant gradient and near 5% for noise with the usual β₁ of 0.9; a larger batch "
        "raises it whatever the loss."
    )
    return _table(
        "trainings-way", "What makes each norm smaller than learning rate × steps", columns, caption, results, index
    )


def _watched(results: Results) -> str:
    """How many held-out rows a training looks at, where the settings tell."""
    rows = results.setting("training.probe_rows")
    return f"{formats.count(rows)} " if isinstance(rows, int) else ""


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


def curves(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Loss against step, one small panel a training, each on its own scale."""
    rows = index.in_order(results.curves or [])
    if not rows:
        return None
    columns = min(4, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure, grid = canvas.grid(PAGE if columns > 2 else 4.6, 0.35 + 1.2 * lines, lines, columns)
    for axes, row in zip(grid.flat, rows, strict=False):
        model = index.models[row.name]
        steps, values = _thin(numbers(row.step), numbers(row.loss))
        axes.plot(steps, values, color=model.colour, linewidth=0.5, alpha=0.4)
        axes.plot(steps, _running(values, max(3, len(values) // 12)), color=model.colour, linewidth=1.5)
        training = results.training(row.name)
        if isinstance(training, Trained) and training.report_step < steps[-1]:
            axes.axvline(training.report_step, color=FLOOR, linewidth=0.7, linestyle=":")
        axes.set_title(called(index, row.name), color="black", fontsize=8)
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


def _growth(index: ModelIndex) -> dict[str, Callable[[Curve], list[float]]]:
    """What is drawn along training, by its title."""
    return {
        f"‖{index.drawn.zero}‖": lambda curve: curve.b_norm,
        index.drawn.moved.replace("−", " − "): lambda curve: curve.a_moved_rel,
        _GRADIENT: lambda curve: curve.grad_norm,
    }


def growth(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """How far the factors move along training, and the gradient's norm: see :func:`_growth`."""
    rows = index.in_order(results.curves or [])
    if not rows:
        return None
    panels = _growth(index)
    figure, grid = canvas.grid(PAGE, 2.9, 1, len(panels))
    for axes, (title, values_of) in zip(grid[0], panels.items(), strict=True):
        logarithmic = title == _GRADIENT
        for row in rows:
            model = index.models[row.name]
            if logarithmic and model.role != "method":
                continue
            steps, values = _thin(numbers(row.step), numbers(values_of(row)))
            if logarithmic:
                values = _running(values, max(3, len(values) // 6))
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
            f"Norm of {index.drawn.zero} (from zero), relative way of {index.drawn.letter} from its start, and the "
            "gradient’s norm (methods at their own rate, running mean, log scale) against optimiser step. Lines that "
            "coincide for "
            "unlike objectives, the one below drawn wider, are Adam’s step size at work; they say nothing about "
            "direction."
        ),
    )


def _curve_rows(results: Results) -> Records:
    lists = ("step", "loss", "grad_norm", "learning_rate", "a_moved_rel", "b_norm", "undone", "signal")
    unknown = {curve.name: [None] * len(curve.step) for curve in results.curves or ()}
    return [
        {"name": curve.name, **dict(zip(lists, values, strict=True))}
        for curve in results.curves or ()
        for values in zip(*(getattr(curve, name) or unknown[curve.name] for name in lists), strict=True)
    ]


SECTION = Section(
    key="trainings",
    title="The trainings",
    step="train",
    tables=from_results(seen_table, moved_table, way_table),
    figures={"curves": curves, "growth": growth},
    csv={"trainings": lambda results: [dump(row) for row in results.trainings], "curves": _curve_rows},
    in_comparison=False,
)
