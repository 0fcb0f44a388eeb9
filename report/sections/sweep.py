"""Is the learning rate the cause: methods at one rate from all trainings of both, and each along its rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from analysis.weights.replicas import noise, runs
from report import formats, matched, scaled
from report.model_index import BASE, ModelIndex, distinct
from report.plotting import FLOOR, PAGE, Canvas, Made, called, floor_lines, gathered, log_axis, look, rate_axis, short
from report.section import Records, Section, csv_of, from_results
from report.tables import Cell, Column, Table, number, records, text
from results import Results, dump
from results.evaluation import Task
from results.matched import AccuracyDifference, Both, MatchedRow, Span
from results.trainings import Sweep, SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLUMNS = 3  # panels side by side
AMOUNTS = ("steps", "rows", "tokens", "problems")  # in which two trainings may agree


def matched_table(results: Results, index: ModelIndex) -> Table | None:
    """Every method beside the reference at each rate that both were trained at."""
    rows = matched.rows(results)
    if not rows:
        return None
    reference = index.label(index.reference or rows[0].to)

    def trained(row: MatchedRow) -> Cell:
        return number(f"{len(row.trainings)} : {len(row.reference_trainings)}")

    columns = [
        *_which(index, reference),
        (Column("Equal", "within 2%"), lambda row: number(_equal(row), "nothing agrees")),
        (Column("Trainings", f"its : {reference}’s"), trained),
        (Column("Cosine", f"to {reference}, mean and range"), lambda row: _spanned(row.cosine, formats.cosine)),
        (Column("Floor", "another order"), lambda row: _spanned(row.floor, formats.cosine, "neither was repeated")),
        (Column("Weighted cosine", "by activations"), lambda row: _spanned(row.weighted, formats.cosine)),
        (Column("Norm ratio", f"to {reference}"), lambda row: _spanned(row.norm_ratio, formats.times)),
        (Column("Scaled by"), lambda row: _spanned(row.factor, formats.times, "as trained")),
        (Column("Norm", f"its, {reference}’s"), lambda row: _both(row.norm, formats.significant)),
        (Column("Undone", f"its, {reference}’s"), lambda row: _both(row.undone, formats.percent)),
        (Column("Signal", f"its, {reference}’s"), lambda row: _both(row.signal, formats.percent)),
    ]
    any_scaled = any(row.factor for row in rows)
    title = f"Every method against {reference} at the same learning rate"
    caption = _caption(index) + (f" {scaled.caption(reference)}" if any_scaled else "")
    return records("matched", f"{title}{', and at the same norm' if any_scaled else ''}", rows, columns, caption)


def behaviour_table(results: Results, index: ModelIndex) -> Table | None:
    """What the trainings of the rows of :func:`matched_table` do."""
    rows = matched.rows(results)
    reference = index.label(index.reference) if index.reference else ""
    columns = [
        *_which(index, reference),
        (Column("KL to base", f"its, {reference}’s"), _kl),
        (
            Column("Held-out loss", f"right rows: its, {reference}’s"),
            lambda row: _both(row.nll_right, formats.significant),
        ),
        (
            Column("Margin", f"wrong less right: its, {reference}’s"),
            lambda row: _both(row.margin, formats.significant),
        ),
        (
            Column("CKA to base", f"mean over layers: its, {reference}’s"),
            lambda row: _both(row.cka_to_base, formats.cosine),
        ),
        (Column("Barrier", "between the two"), lambda row: _spanned(row.barrier, formats.significant)),
        *((Column(task.title, f"points to {reference}, 95% interval"), _accuracy(task)) for task in results.tasks),
    ]  # fmt: skip
    return records("matched-behaviour", "What these trainings do", rows, columns, _behaviour_caption())


def _which(index: ModelIndex, reference: str) -> list[tuple[Column, Callable[[MatchedRow], Cell]]]:
    """The columns that tell which trainings a row compares."""

    def rate(row: MatchedRow) -> Cell:
        beside = "" if row.learning_rate == row.reference_rate else f"{reference} at {formats.rate(row.reference_rate)}"
        if row.matched == "best rate":
            beside = f"each at its best: {beside or 'the same'}"
        return number(formats.rate(row.learning_rate), detail=beside)

    def method(row: MatchedRow) -> Cell:
        beside = "" if index.label(row.to) == reference else f"beside {index.label(row.to)}"
        at = f", at {index.label(row.to)}’s norm" if row.matched == "norm" else ""
        return replace(text(index.label(row.method) + at), detail=beside)

    return [
        (Column("Method", kind="text"), method),
        (Column("Learning rate", "of both"), rate),
    ]


def _equal(row: MatchedRow) -> str:
    """In what the two agree; the learning rate has a column of its own."""
    agreeing = [quantity for quantity in row.equal if quantity != "learning rate"]
    return "all four" if len(agreeing) == len(AMOUNTS) else ", ".join(agreeing) or formats.MISSING


def _both(both: Both, form: Callable[[float | None], str]) -> Cell:
    return number(form(both.its), "not measured", form(both.reference) if both.reference is not None else "")


def _spanned(span: Span | None, form: Callable[[float | None], str], why: str = "not measured") -> Cell:
    if span is None:
        return number(formats.MISSING, why)
    ends = form(span.low), form(span.high)
    return number(form(span.mean), detail=f"{ends[0]} to {ends[1]}" if ends[0] != ends[1] else "")


def _kl(row: MatchedRow) -> Cell:
    return number(formats.significant(row.kl_to_base), "not measured", formats.significant(row.reference_kl))


def _accuracy(task: Task) -> Callable[[MatchedRow], Cell]:
    def cell(row: MatchedRow) -> Cell:
        found = next((one for one in row.accuracy if one.task == task.task), None)
        if found is None:
            return number(formats.MISSING, "not evaluated")
        return number(_points(found.difference), detail=_how_sure(found))

    return cell


def _points(share: float) -> str:
    return f"{'+' if share > 0 else ''}{formats.fixed(100 * share, 1)}"


def _how_sure(found: AccuracyDifference) -> str:
    if found.low is None or found.high is None:
        alone = found.trainings == found.reference_trainings == 1
        return "one training of each: not told from a seed" if alone else "nothing varies"
    interval = f"{_points(found.low)} to {_points(found.high)}, p {formats.p_value(found.p_holm)}"
    interval += ", the one training taken to vary as the other method’s do" if found.pooled else ""
    if found.settled is None:
        return interval
    if found.settled.trainings is not None:
        return f"{interval}: undecided, {formats.count(found.settled.trainings)} trainings of each would tell"
    if found.settled.problems is not None:
        return f"{interval}: undecided, {formats.count(found.settled.problems)} problems would tell"
    return f"{interval}: undecided"


def _caption(index: ModelIndex) -> str:
    reference = index.label(index.reference) if index.reference else "the reference"
    return (
        f"All trainings of a method at one rate beside all of the reference’s, from the same {index.drawn.initial}. "
        "Equal: in which of the four amounts the two agree, optimiser steps, rows, completion tokens and different "
        "problems; where a "
        "method’s own trainings do not, and some with another batch size, steps or choice of rows do, those have a row "
        f"too (“beside” names {reference}’s where they are not its own). "
        "Floor: the cosine of two trainings of either that differ in the order of rows alone; the pairs of the cosine "
        "beside it include those of one order. Undone: 1 − ‖sum of the steps‖ / ‖sum of the steps’ absolute values‖ "
        "over all elements of A and B: what makes a norm smaller than learning rate × steps. Signal: the share of the "
        "gradient’s power that its running mean holds (as long as Adam’s) at the end: near 0.05 for noise, with Adam’s "
        "usual 0.9; a larger batch raises it whatever the loss."
    )


def _behaviour_caption() -> str:
    return (
        "The rows of the table above; losses, margins and barriers in nats a token. Held-out loss: on right rows. "
        "Margin: the loss on wrong held-out rows less that on right ones. Barrier: of the "
        "path between the two, where it was measured. Accuracy: mean of the "
        "method’s trainings less the reference’s; interval and p (Holm over the rows) hold what other trainings and "
        "other problems would change, unlike the tests between two checkpoints. Undecided: how many trainings of each "
        "would tell a difference of this size with 80% power, from the variance seen; with two trainings that is a "
        "guess."
    )


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


def _rows(results: Results) -> Records:
    """A row and task each; a row alone where nothing was evaluated."""
    return [
        {key: value for key, value in dump(row).items() if key != "accuracy"} | (dump(accuracy) if accuracy else {})
        for row in results.matched or []
        for accuracy in (row.accuracy or (None,))
    ]


SECTION = Section(
    key="sweep",
    title="Is the learning rate the cause?",
    step="train",
    tables=from_results(matched_table, behaviour_table, scaled.table, sweep_table),
    figures={"sweep": sweep},
    csv={"matched": _rows} | scaled.CSV | csv_of(lambda results: results.sweep, {"sweep": lambda sweep: sweep.points}),
)
