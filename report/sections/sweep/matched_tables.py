"""The methods beside the reference at equal settings: which trainings, their updates, and what these do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from report import formats, matched
from report.model_index import ModelIndex
from report.section import Records
from report.sections.sweep import scaled
from report.tables import Cell, Column, Table, number, records, text
from results import Results, dump
from results.evaluation import Task
from results.matched import AccuracyDifference, Both, MatchedRow, Span

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
        (Column("Smallest angle", "median, output side"), lambda row: _spanned(row.angle_min, formats.degrees)),
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
        f"All trainings of a method at one rate beside all of the reference’s, from one {index.by_chance.initial}. "
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


def as_csv(results: Results) -> Records:
    """A row and task each; a row alone where nothing was evaluated."""
    return [
        {key: value for key, value in dump(row).items() if key != "accuracy"} | (dump(accuracy) if accuracy else {})
        for row in results.matched or []
        for accuracy in (row.accuracy or (None,))
    ]
