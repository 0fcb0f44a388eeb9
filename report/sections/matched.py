"""Methods at the same learning rate, from all trainings of both; and every method along its learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.weights.replicas import noise, runs
from report import formats
from report.model_index import BASE, ModelIndex
from report.plotting import FLOOR, PAGE, Canvas, Made, called, gathered, log_axis, look, rate_axis, short
from report.section import Records, Section, from_results
from report.tables import Cell, Column, Table, number, records, text
from results import Results, dump
from results.evaluation import Task
from results.matched import AccuracyDifference, MatchedRow, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.05


def matched_table(results: Results, index: ModelIndex) -> Table | None:
    """Every method beside the reference at each rate that both were trained at."""
    rows = results.matched or []
    if not any(len(row.trainings) > 1 or len(row.reference_trainings) > 1 for row in rows):
        return None  # as many rows as the headline's, and nothing more in them
    reference = index.label(rows[0].to)

    def trained(row: MatchedRow) -> Cell:
        return number(f"{len(row.trainings)} : {len(row.reference_trainings)}")

    def rate(row: MatchedRow) -> Cell:
        beside = "" if row.learning_rate == row.reference_rate else f"{reference} at {formats.rate(row.reference_rate)}"
        return number(formats.rate(row.learning_rate), detail=beside)

    columns = [
        (Column("Method", kind="text"), lambda row: text(index.label(row.method))),
        (Column("Learning rate", "of both"), rate),
        (Column("Trainings", f"its : {reference}’s"), trained),
        (Column("Cosine", f"to {reference}, mean and range"), lambda row: _spanned(row.cosine, formats.cosine)),
        (Column("Floor", "another order"), lambda row: _spanned(row.floor, formats.cosine, "neither was repeated")),
        (Column("Weighted cosine", "by activations"), lambda row: _spanned(row.weighted, formats.cosine)),
        (Column("Norm ratio", f"to {reference}"), lambda row: _spanned(row.norm_ratio, formats.times)),
        (Column("KL to base", f"its, {reference}’s"), lambda row: _kl(row)),
        *((Column(task.title, f"points to {reference}, 95% interval"), _accuracy(task)) for task in results.tasks),
    ]  # fmt: skip
    return records("matched", f"Every method against {reference} at the same learning rate", rows, columns, _caption())


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
        return "one training of each: not told from a seed"
    interval = f"{_points(found.low)} to {_points(found.high)}, p {formats.p_value(found.p_holm)}"
    if found.settled is None:
        return interval
    if found.settled.trainings is not None:
        return f"{interval}: undecided, {formats.count(found.settled.trainings)} trainings of each would tell"
    if found.settled.problems is not None:
        return f"{interval}: undecided, {formats.count(found.settled.problems)} problems would tell"
    return f"{interval}: undecided"


def _caption() -> str:
    return (
        "All trainings of a method at one rate beside all of the reference’s, from the same initial A. Floor: the "
        "cosine of two trainings of either that differ in the order of rows alone. Accuracy: mean of the method’s "
        "trainings less the reference’s; interval and p (Holm over the rows) hold what other trainings and other "
        "problems would change, unlike the tests between two checkpoints. Undecided: how many trainings of each would "
        "tell a difference of this size with 80% power, from the variance seen; with two trainings that is a guess."
    )


def dose(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Norm, cosine to the reference at the same rate, KL to base and accuracy against the rate, a line a method."""
    by = _by_rate(results)
    methods = [method for method in by if len(by[method]) > 1]
    reference = index.reference
    if len(methods) < 2 or reference is None:
        return None
    figure, panels = canvas.grid(PAGE, 5.2, 2, 2)
    rates = sorted({rate for method in methods for rate in by[method]})
    norms = results.geometry.norms if results.geometry else {}
    kl = {row.name: row.kl_to_base for row in results.losses or []}
    measured: list[tuple[Axes, str, Callable[[str], float | None], bool]] = [
        (panels[0, 0], "‖ΔW‖ (log scale)", norms.get, True),
        (
            panels[0, 1],
            f"cosine to {called(index, reference)}, same rate",
            _to_reference(results, by, reference),
            False,
        ),
        (panels[1, 0], "KL to base, nats a token (log scale)", kl.get, True),
    ]
    task = results.tasks[0] if results.tasks else None
    if task is not None:
        shown = short(task.title, 28)
        measured.append((panels[1, 1], f"right on {shown}, %", lambda name: _percent(task, name), False))
    else:
        panels[1, 1].set_axis_off()
    for axes, label, value, logarithmic in measured:
        rate_axis(axes, rates)
        _lines(axes, by, methods, index, value)
        axes.set_ylabel(label)
        if logarithmic:
            _logarithmic(axes)
    if task is not None and (base := task.score(BASE)):
        panels[1, 1].axhline(100 * base.accuracy, color="#000000", linewidth=0.8, label="base")
    chance = results.geometry.chance.shared_a.cosine if results.geometry else None
    if chance is not None:
        panels[0, 1].axhline(0, color=FLOOR, linewidth=0.6)
    gathered(figure, [called(index, method) for method in methods])
    return (
        figure,
        "Dose: what the learning rate does to every method",
        "A point is one training, a line joins the means. Cosine: to the reference’s trainings at that rate; of the "
        "reference to itself in another order. A training that diverged has a KL far above the others’.",
    )


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
    """A training's mean cosine to the reference's trainings at the same rate, itself left out."""
    places = {name: rate for of in by.values() for rate, names in of.items() for name in names}

    def cosine(name: str) -> float | None:
        others = by.get(reference, {}).get(places[name], ())
        pairs = [results.geometry.pair(name, other) for other in others if other != name] if results.geometry else []
        known = [pair.cosine for pair in pairs if pair is not None and pair.cosine is not None]
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
        style = look(index.models[method])
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
    key="matched",
    title="At the same learning rate",
    step="geometry",
    tables=from_results(matched_table),
    figures={"dose": dose},
    csv={"matched": _rows},
)
