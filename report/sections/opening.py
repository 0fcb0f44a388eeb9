"""The first screen: every method against the reference with its floors, and direction against size."""

from __future__ import annotations

from collections.abc import Sequence

from report import formats, headline
from report.findings.claim import cosines
from report.findings.direction import compared, place
from report.findings.evidence import evidence
from report.headline import Row
from report.model_index import ModelIndex, dimensions, other
from report.plotting import PAGE, Canvas, Made, bring_out, called, floor_lines, gathered, log_axis, look
from report.section import Section, csv_of
from report.tables import ZERO_UPDATE, Cell, Column, Line, Table, failed, filled, number, records, text
from results import Results
from results.evaluation import Task
from results.trainings import Untrained

_NO_UPDATE = "the base carries no update"
_ZERO_REFERENCE = "the reference’s update is zero: nothing can be compared with it"
_TINTED = ("reference", "floor", "chance", "base")
_VERDICTS = {
    "apart": "differs", "rate": "no further than another rate takes it", "level": "not told apart",
    "unrepeated": "undecided: one was not repeated", "unsteady": "undecided: one does not reproduce itself",
    "open": "undecided: no method was repeated",
}  # fmt: skip
_UPDATES = ("reference", "method", "matched", "floor")


def _why(index: ModelIndex, row: Row, reference_norm: float | None) -> str:
    if row.kind == "base":
        return _NO_UPDATE
    if row.kind == "chance":
        return "chance has no training of its own"
    if row.norm == 0:
        return ZERO_UPDATE
    if row.noise:
        whose = formats.listing([index.label(name) for name in row.noise])
        return f"undefined: made of rounding, and without a direction, is the update of {whose}"
    return _ZERO_REFERENCE if reference_norm == 0 else "not measured"


def _accuracy_cell(task: Task, row: Row) -> Cell:
    score = task.score(row.name)
    if score is None:
        return number(formats.MISSING, "not evaluated")
    return number(formats.percent(score.accuracy), detail=formats.interval(score.low, score.high))


def _cosine_cell(row: Row, value: float | None, why: str) -> Cell:
    if row.kind == "chance" and value is not None:
        return number(f"±{formats.significant(value, 2)}")
    return number(formats.cosine(value), why, "" if row.to_reference else "to its own method")


def directions_table(results: Results, index: ModelIndex) -> Table | None:
    """Every method's cosine to the reference over all pairs of their runs, beside what a new order gives the two."""
    if index.reference is None:
        return None
    ev = evidence(results, index)
    reference = ev.label(ev.reference)
    own = ev.within(ev.reference)

    def spanned(values: Sequence[float], why: str) -> Cell:
        pairs = f"{formats.count(len(values))} {'pair' if len(values) == 1 else 'pairs'}"
        return number(cosines(values), detail=pairs) if values else number(formats.MISSING, why)

    columns = [
        (Column("Method", kind="text"), lambda one: text(ev.label(one.family))),
        (Column("Learning rate"), lambda one: number(formats.rate(one.family.learning_rate), "not known")),
        (Column("Cosine", f"to {reference}, all runs"), lambda one: spanned(one.cosines, "not defined")),
        (Column("Another order", "to itself"), lambda one: spanned(ev.within(one.family), "not repeated")),
        (Column("Another order", f"{reference} to itself"), lambda one: spanned(own, "not repeated")),
        (Column("In direction", kind="text"), lambda one: text(_VERDICTS[one.kind])),
    ]
    rows = [one for family in compared(ev) if ev.comparable(family) and (one := place(ev, family))]
    caption = (
        "Lowest to highest cosine over all pairs of runs. Differs: every pair lies below what a new order of rows "
        "gives either of the two, or, where one was not repeated, gives any method."
    )
    title = f"Direction beside {reference}’s, and what a new order of rows gives"
    return records("directions", title, rows, columns, caption)


def headline_table(results: Results, index: ModelIndex, rows: list[Row]) -> Table | None:
    """Every method against the reference, floors in the same rows; None where there is nothing to compare."""
    if not rows:
        return None
    reference = index.label(index.reference)
    weighed = any(row.weighted is not None for row in rows)
    matched = any(row.matched for row in rows)
    to_reference = f"to {reference}"
    columns = (
        Column("Model", kind="text"),
        *((Column("Compared at", kind="text"),) if matched else ()),
        Column("Learning rate"),
        Column("Cosine", to_reference),
        *((Column("Weighted cosine", "by activations"),) if weighed else ()),
        Column("Smallest angle", "median"),
        Column("|u₁·u₁′|", "output side"),
        Column("|v₁·v₁′|", "input side"),
        Column("Norm", "‖ΔW‖"),
        Column("Norm ratio", to_reference),
        Column("Rate × steps", to_reference),
        *(Column(task.title, "right, 95% interval") for task in results.tasks),
    )
    lines = []
    norm = headline.reference_norm(results, index)
    for row in rows:
        if row.kind == "failed":
            lines.append(failed(row.label, row.error, len(columns)))
            continue
        why = _why(index, row, norm)
        cells = (
            text(row.label),
            *((text(headline.match_label(index, row)),) if matched else ()),
            number(formats.rate(row.learning_rate), why),
            _cosine_cell(row, row.cosine, why),
            *((_cosine_cell(row, row.weighted, why),) if weighed else ()),
            number(formats.degrees(row.angle_min), why),
            number(formats.cosine(row.u1), why),
            number(formats.cosine(row.v1), why),
            number(formats.significant(row.norm), why, "noise" if row.name in row.noise else ""),
            number(formats.times(row.norm_ratio), why),
            number(formats.times(row.rate_steps_ratio), why),
            *(_accuracy_cell(task, row) for task in results.tasks),
        )
        lines.append(Line(cells, row.kind if row.kind in _TINTED else ""))
    table = Table(
        "headline", f"Every method against {reference}", columns, tuple(lines), _headline_caption(results, index)
    )
    return filled(table)


def _headline_caption(results: Results, index: ModelIndex) -> str:
    pairs = results.geometry.pairs if results.geometry else []
    k = dimensions(results, (pair for pair in pairs if other(pair, index.reference)))
    top = f"the top {k} left singular vectors" if k else "the top left singular vectors"
    trained = " Rate × steps is a yardstick: the norm ratio if every step of Adam went the same way."
    known = not all(isinstance(training, Untrained) for training in results.trainings)
    counts = [f"{task.title} n = {formats.count(task.n)}" for task in results.tasks]
    asked = f" Accuracy: {'; '.join(counts)}; 95% intervals." if counts else ""
    return (
        f"Cosine and norm over all adapted modules stacked. Smallest angle: between {top} of two updates, "
        "median over modules. |u₁·u₁′| and |v₁·v₁′|: overlap of the first singular directions, mean over "
        f"modules.{trained if known else ''} "
        "Shaded rows are floors, measured or drawn for these adapters; a chance cosine has mean 0, and "
        f"its root mean square is shown.{asked} One training a row: the table cannot tell a method from "
        f"the luck of its one run beyond what the floors show. The {index.by_chance.side} side is shared through the "
        f"{index.by_chance.initial}, so a high {index.by_chance.overlap} must be read against its chance row."
    )


def step_size(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Cosine to the reference against norm: a mere step size would move a point sideways only."""
    rows = [row for row in headline.rows(results, index) if row.kind in _UPDATES and row.to_reference]
    rows = [row for row in rows if row.name in index.models]
    points = [(row.name, row.norm, row.cosine) for row in rows if row.norm and row.cosine is not None]
    if len(points) < 2:
        return None
    figure, ((axes,),) = canvas.grid(PAGE, 3.2)
    floors = floor_lines(results, index, lambda row: row.cosine)
    for floor in floors:
        axes.axhline(floor.value, color=floor.colour, linestyle=floor.dashes, linewidth=1, label=floor.label)
    swept = {point.name for point in results.sweep.points} if results.sweep else set()
    along = sorted((norm, cosine) for name, norm, cosine in points if name in swept)
    if len(along) > 1:
        axes.plot(*zip(*along, strict=True), color="#D55E00", linewidth=0.8, alpha=0.6, zorder=1)
    for name, norm, cosine in dict.fromkeys(points):
        model = index.models[name]
        axes.plot([norm], [cosine], **{**look(model), "linestyle": "none"}, markersize=7, label=called(index, name))
    norms = [norm for _, norm, _ in points]
    log_axis(axes, "x", min(norms) / 1.35, max(norms) * 1.35)
    axes.set_xlabel("norm of the update, ‖ΔW‖ (log scale)")
    axes.set_ylabel(f"cosine to {called(index, index.reference)}")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.04), max(high, 1.04))
    bring_out(axes, index)
    order = [floor.label for floor in floors] + [called(index, name) for name in index.models]
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


SECTION = Section(
    key="headline",
    title="Every method against the reference",
    tables=lambda source: [
        headline_table(source.results, source.index, source.headline),
        directions_table(source.results, source.index),
    ],
    figures={"step-size": step_size},
    csv=csv_of(lambda results: results.headline, {"headline": lambda rows: rows}),
)
