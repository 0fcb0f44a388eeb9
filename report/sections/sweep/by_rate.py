"""Methods along their learning rates: the sweep of one, and every method at each rate that it was trained at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from analysis.weights.replicas import noise, runs
from report import formats
from report.model_index import BASE, ModelIndex, distinct
from report.plotting import FLOOR, PAGE, Canvas, Made, called, floor_lines, gathered, log_axis, look, rate_axis, short
from report.tables import Cell, Column, Table, number, records, text
from results import Results
from results.evaluation import Task
from results.trainings import Sweep, SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLUMNS = 3  # panels side by side


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
    """Norm, cosine to the reference, KL to base and accuracies against the learning rate, a line a method."""
    by = _by_rate(results)
    failed = sorted({t.learning_rate for t in results.trainings if t.status == "failed"})
    methods = [method for method, rates in by.items() if len(rates) > 1 and _first(by, method) in index.models]
    reference = index.reference
    if not methods or reference is None:
        return None
    norms = results.geometry.norms if results.geometry else {}
    kl = {row.name: row.kl_to_base for row in results.losses or []}
    rates = sorted({*failed, *(rate for method in methods for rate in by[method])})
    names = distinct([task.task for task in results.tasks], lambda name: short(_titles(results)[name], 24))
    panels: list[tuple[str, Callable[[str], float | None]]] = [
        ("‖ΔW‖ (log scale)", norms.get),
        (f"cosine to {called(index, reference)}", _to_reference(results, by, reference)),
        ("KL to base, nats (log scale)", kl.get),
        *((f"right, %: {names[task.task]}", partial(_percent, task)) for task in results.tasks),
    ]
    rows = math.ceil(len(panels) / COLUMNS)
    figure, grid = canvas.grid(PAGE, 0.5 + 2.3 * rows, rows, COLUMNS)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (label, value) in zip(grid.flat, panels, strict=False):
        rate_axis(axes, rates)
        _lines(axes, by, methods, index, value)
        axes.set_ylabel(label)
        for rate in failed:
            axes.text(rate, 0.04, "failed", transform=axes.get_xaxis_transform(), rotation=90, ha="center",
                      va="bottom", fontsize=7, color="#A02000")  # fmt: skip
    _null(grid.flat[0], by[methods[0]], rates, norms)
    floors = floor_lines(results, index, lambda row: row.cosine)
    for floor in (line for line in floors if line.kind in ("order", "init")):
        grid.flat[1].axhline(floor.value, color=floor.colour, linestyle=floor.dashes, linewidth=1, label=floor.label)
    for axes in (grid.flat[0], grid.flat[2]):
        _logarithmic(axes)
    for axes, task in zip(grid.flat[3:], results.tasks, strict=False):
        if base := task.score(BASE):
            axes.axhline(100 * base.accuracy, color="#000000", linewidth=0.8, label="base")
    gathered(figure, [called(index, method) for method in methods])
    return (
        figure,
        "What the learning rate does to each method",
        f"A point is one training, a line joins the means. Cosine: to {index.label(reference)}’s trainings at that "
        "rate, of its own to each other; where it was not trained at that rate, to its own one. Grey lines: floors; in "
        "the first panel the norm in proportion to the rate, drawn through the smallest: what Adam gives if every step "
        "goes the same way. A training that diverged has a KL far above the others’.",
    )


def _first(by: Mapping[str, Mapping[float, Sequence[str]]], method: str) -> str:
    """The training whose look a method has: a variant may have no run at its own rate."""
    names = [name for of in by[method].values() for name in of]
    return method if method in names else names[0]


def _titles(results: Results) -> dict[str, str]:
    return {task.task: task.title for task in results.tasks}


def _null(axes: Axes, by: Mapping[float, Sequence[str]], rates: Sequence[float], norms: Mapping[str, float]) -> None:
    """The norm in proportion to the rate, through the smallest rate's."""
    first = min(by)
    known = [norm for name in by[first] if (norm := norms.get(name))]
    if known:
        null = float(np.mean(known)) * np.array(rates) / first
        axes.plot(rates, null, color=FLOOR, linestyle="--", linewidth=0.9, label="norm in proportion to rate")


def _by_rate(results: Results) -> dict[str, dict[float, list[str]]]:
    """Trainings from the reference's initial A with no other setting varied, by method and learning rate."""
    rows = [vars(training) for training in results.trainings]
    reference = next((row for row in rows if row["name"] == results.reference), None)
    marked = noise(rows)
    found: dict[str, dict[float, list[str]]] = {}
    if reference is None:
        return found
    own = runs(rows, [reference["name"]])[0].family[2:]
    for run in runs(rows, [row["name"] for row in rows if row["status"] == "done" and row["name"] not in marked]):
        if run.family[2:] == own and run.learning_rate is not None:
            found.setdefault(run.method, {}).setdefault(run.learning_rate, []).append(run.name)
    return found


def _to_reference(
    results: Results, by: Mapping[str, Mapping[float, Sequence[str]]], reference: str
) -> Callable[[str], float | None]:
    """A training's mean cosine to the reference's trainings at the same rate, itself left out, or to the reference."""
    places = {name: rate for of in by.values() for rate, names in of.items() for name in names}

    def cosine(name: str) -> float | None:
        others = by.get(reference, {}).get(places[name], (reference,))
        found = [results.geometry.cosine(name, other) for other in others if other != name] if results.geometry else []
        known = [cosine for cosine in found if cosine is not None]
        return float(np.mean(known)) if known else None

    return cosine


def _percent(task: Task, name: str) -> float | None:
    score = task.score(name)
    return None if score is None else 100 * score.accuracy


def _lines(
    axes: Axes,
    by: Mapping[str, Mapping[float, Sequence[str]]],
    methods: Sequence[str],
    index: ModelIndex,
    value: Callable[[str], float | None],
) -> None:
    for method in methods:
        points = [(rate, found) for rate, names in sorted(by[method].items()) for name in names
                  if (found := value(name)) is not None]  # fmt: skip
        means = [(rate, np.mean([y for x, y in points if x == rate])) for rate in sorted({x for x, _ in points})]
        if not means:
            continue
        style = look(index.models[_first(by, method)])
        axes.plot(*zip(*points, strict=True), **{**style, "linestyle": "none"}, markersize=4, alpha=0.7)
        axes.plot(*zip(*means, strict=True), **{**style, "marker": ""}, linewidth=1.2, label=called(index, method))


def _logarithmic(axes: Axes) -> None:
    values = [y for line in axes.lines for y in np.asarray(line.get_ydata(), dtype=float) if y > 0]
    if values:
        log_axis(axes, "y", min(values) / 1.4, max(values) * 1.4)
