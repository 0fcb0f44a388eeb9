"""Updates at the norm of the reference's: each scaled copy with what was measured of it."""

from __future__ import annotations

from collections.abc import Callable

from report import formats
from report.model_index import ModelIndex
from report.section import Records, csv_of
from report.tables import Cell, Column, Table, named, number, records
from results import Results, dump
from results.evaluation import Score, Task
from results.scaled import Scaled


def caption(reference: str) -> str:
    """What the rows of scaled copies are, for the caption of the table that they stand in."""
    return (
        f"At {reference}’s norm: the method’s updates, each multiplied by one number (Scaled by) so that its norm is "
        f"that of {reference}’s own training, and evaluated so; nothing is trained again. Losses, KL and accuracy are "
        "of these, the direction is that of the updates as trained. It is a point on the update’s ray: what training "
        "longer or faster would have reached is another matter, the more so the further the factor is from 1."
    )


def table(results: Results, index: ModelIndex) -> Table | None:
    """The scaled copies, one by one."""
    losses = {row.name: row for row in results.losses or []}
    last = max((row.layer for row in results.scaled_cka or ()), default=None)
    cka = {row.name: row.cka for row in results.scaled_cka or () if row.layer == last}

    def loss(row: Scaled, what: str) -> Cell:
        return number(formats.significant(getattr(losses.get(row.name), what, None)), "not measured")

    def accuracy(task: Task) -> Callable[[Scaled], Cell]:
        def cell(row: Scaled) -> Cell:
            score = _score(task, row.name)
            if score is None:
                return number(formats.MISSING, "not evaluated")
            return number(formats.percent(score.accuracy), detail=formats.interval(score.low, score.high))

        return cell

    return records(
        "scaled",
        f"Updates at the norm of {index.label(index.reference)}’s, one by one",
        results.scaled or [],
        [
            named(index),
            (Column("Scaled by"), lambda row: number(formats.times(row.factor))),
            (Column("Norm", "as trained"), lambda row: number(formats.significant(row.norm_before))),
            (Column("Norm", "scaled"), lambda row: number(formats.significant(row.norm))),
            (Column("Held-out loss", "right rows, nats a token"), lambda row: loss(row, "nll_right")),
            (Column("KL to base", "nats a token"), lambda row: loss(row, "kl_to_base")),
            (
                Column("CKA to base", f"after layer {last}"),
                lambda row: number(formats.cosine(cka.get(row.name)), "not measured"),
            ),
            *((Column(task.title, "right, 95% interval"), accuracy(task)) for task in results.tasks),
        ],
        "Each is one draw of its order of rows; the table above has all orders of a method together.",
        folded=True,
    )


def _score(task: Task, name: str) -> Score | None:
    return next((score for score in task.scaled or () if score.name == name), None)


def _rows(results: Results) -> Records:
    """A copy each, with its accuracy on each task on which it was evaluated."""
    return [
        dump(row)
        | {"accuracy": {task.task: score.accuracy for task in results.tasks if (score := _score(task, row.name))}}
        for row in results.scaled or []
    ]


CSV = {"scaled": _rows} | csv_of(lambda results: results.scaled_cka, {"scaled_cka": lambda rows: rows})
