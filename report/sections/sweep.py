"""One method along its learning rate: norm, cosine, losses and accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from report import formats, headline
from report.model_index import BASE, ModelIndex, distinct
from report.plotting import (
    FLOOR,
    PAGE,
    Canvas,
    Made,
    called,
    floor_lines,
    gathered,
    log_axis,
    numbers,
    rate_axis,
    short,
)
from report.section import Section, csv_of, from_results
from report.tables import Cell, Column, Table, number, records, text
from results import Results
from results.evaluation import Task
from results.trainings import Sweep, SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sweep_table(results: Results, index: ModelIndex) -> Table | None:
    """The learning-rate sweep, a row a point."""
    sweep = results.sweep
    if sweep is None:
        return None
    matched = sweep.matched_learning_rate

    def measured(row: SweepPoint, shown: str) -> Cell:
        error = index.models[row.name].error
        return number(shown, f"failed: {error}" if error else "not measured")

    def accuracy(task: Task) -> Callable[[SweepPoint], Cell]:
        return lambda row: number(formats.percent(row.accuracy.get(task.task)), "not evaluated")

    def rate(row: SweepPoint) -> str:
        return f"{formats.rate(row.learning_rate)}{' (matched)' if row.learning_rate == matched else ''}"

    return records(
        "sweep",
        f"Sweep of {index.label(sweep.method)}’s learning rate",
        sweep.points,
        [
            (Column("Learning rate", kind="text"), lambda row: text(rate(row))),
            (Column("Norm", "‖ΔW‖"), lambda row: measured(row, formats.significant(row.norm))),
            (
                Column("Cosine", f"to {index.label(index.reference)}"),
                lambda row: measured(row, formats.cosine(row.cosine_to_sft)),
            ),
            (
                Column(f"{index.drawn.letter} moved", index.drawn.moved),
                lambda row: measured(row, formats.significant(row.a_moved_rel)),
            ),
            (
                Column("Held-out loss", "right rows, nats a token"),
                lambda row: measured(row, formats.significant(row.nll_right)),
            ),
            *((Column(task.title, "right"), accuracy(task)) for task in _tasks(results, sweep)),
        ],
        f"One training a rate, same steps. The matched rate ({formats.rate(matched)}) is the one that the "
        "other methods use. The sweep moves one method’s rate only: it cannot tell what the others would "
        "do at other rates.",
    )


def _tasks(results: Results, sweep: Sweep) -> list[Task]:
    """The tasks on which a point of the sweep was evaluated."""
    return [task for task in results.tasks if any(task.task in point.accuracy for point in sweep.points)]


def sweep(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Norm, cosine to the reference and accuracy against one method's learning rate."""
    measured = results.sweep
    if measured is None:
        return None
    colour = index.models[measured.method].colour
    figure, (panels,) = canvas.grid(PAGE, 2.9, 1, 3)
    for axes in panels:
        axes.axvline(measured.matched_learning_rate, color="#0072B2", linewidth=3, alpha=0.22, label="matched rate")
        rate_axis(axes, [point.learning_rate for point in measured.points])
        for point in measured.points:
            if index.models[point.name].error:
                axes.text(point.learning_rate, 0.04, "failed", transform=axes.get_xaxis_transform(),
                          rotation=90, ha="center", va="bottom", fontsize=7, color="#A02000")  # fmt: skip
    line = {"color": colour, "marker": "P", "label": f"{called(index, measured.method)}, norm and cosine"}
    _norm_panel(panels[0], measured, line, results, index)
    _cosine_panel(panels[1], measured, line, results, index)
    _accuracy_panel(panels[2], measured, colour, results)
    gathered(figure, columns=3)
    return (
        figure,
        f"{index.label(measured.method)} along its learning rate",
        (
            "One training a point, the same number of steps. Blue band: the rate of the other methods. "
            f"Grey lines: floors ({index.label(index.reference)} again, with another order of rows or "
            f"{index.drawn.initial}), the base’s accuracy, and in the first panel the norm in proportion to the rate, "
            "drawn through the smallest rate: what Adam gives if every step goes the same way. A gap in a line "
            "is a training that failed."
        ),
    )


def _norm_panel(axes: Axes, sweep: Sweep, line: dict, results: Results, index: ModelIndex) -> None:
    rates = numbers([point.learning_rate for point in sweep.points])
    norms = numbers([point.norm for point in sweep.points])
    axes.plot(rates, norms, **line)
    good = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    if len(good):
        null = norms[good[0]] * rates / rates[good[0]]
        axes.plot(rates, null, color=FLOOR, linestyle="--", label="norm in proportion to rate")
        reference = headline.reference_norm(results, index)
        seen = [*norms[good], *null, *([reference] if reference else [])]
        log_axis(axes, "y", min(seen) / 1.4, max(seen) * 1.4)
        if reference:
            words = f"{called(index, index.reference)}’s norm"
            axes.axhline(reference, color="#0072B2", linewidth=0.9, label=words)
    axes.set_ylabel("‖ΔW‖ (log scale)")


def _cosine_panel(axes: Axes, sweep: Sweep, line: dict, results: Results, index: ModelIndex) -> None:
    rates = numbers([point.learning_rate for point in sweep.points])
    axes.plot(rates, numbers([point.cosine_to_sft for point in sweep.points]), **line)
    for floor in floor_lines(results, index, lambda row: row.cosine):
        if floor.kind in ("order", "init"):
            axes.axhline(floor.value, color=floor.colour, linestyle=floor.dashes, linewidth=1, label=floor.label)
    axes.set_ylabel(f"cosine to {called(index, index.reference)}")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0) - 0.03, max(high, 1.03))


def _accuracy_panel(axes: Axes, sweep: Sweep, colour: str, results: Results) -> None:
    rates = numbers([point.learning_rate for point in sweep.points])
    tasks = {task.task: task for task in _tasks(results, sweep)}
    names = distinct(list(tasks), lambda name: short(tasks[name].title, 28))
    for i, (name, task) in enumerate(tasks.items()):
        marker, dashes = "Po^Dv"[i % 5], ("-", "--", ":", "-.")[i % 4]
        values = 100 * numbers([point.accuracy.get(name) for point in sweep.points])
        axes.plot(rates, values, color=colour, marker=marker, linestyle=dashes, label=f"right, {names[name]}")
        if base := task.score(BASE):
            height, words = 100 * base.accuracy, f"base, {names[name]}"
            axes.axhline(height, color="#000000", linewidth=0.7, linestyle=dashes, label=words)
    axes.set_ylabel("right, %")


SECTION = Section(
    key="sweep",
    title="Is the learning rate the cause?",
    step="train",
    tables=from_results(sweep_table),
    figures={"sweep": sweep},
    csv=csv_of(lambda results: results.sweep, {"sweep": lambda sweep: sweep.points}),
)
