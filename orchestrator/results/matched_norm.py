"""Methods beside the reference at its norm: the rows of scaled copies of their trainings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from analysis.statistics.trainings import MethodDifference
from analysis.weights.replicas import Run
from orchestrator.planning.matches import Match
from orchestrator.results.matched_columns import Columns, span
from results.matched import MatchedRow
from results.scaled import Scaled

Row = tuple[MatchedRow, list[MethodDifference]]
Shares = Mapping[str, Mapping[str, np.ndarray]]


class Copied(NamedTuple):
    """Scaled copies of trainings beside the reference's trainings, with the copies' numbers by their trainings' names.

    So one row has the copies' losses and verdicts, and the cosines and angles of the trainings.
    """

    copies: list[Scaled]
    runs: list[Run]
    reference: Sequence[Run]
    columns: Columns
    shares: Shares


def at_norm(
    at_rates: Iterable[tuple[Match, Sequence[Run], Sequence[Run]]],
    scaled: Sequence[Scaled],
    columns: Columns,
    shares: Shares,
) -> Iterator[Copied]:
    """For each method and rate of ``at_rates`` with scaled copies, these beside the reference at its own rate."""
    copies = {copy.of: copy for copy in scaled}
    pairs = list(at_rates)
    reference = next((two for _, _, two in pairs if any(run.name == copy.to for run in two for copy in scaled)), None)
    if reference is None:
        return
    for one in {tuple(run.name for run in one): one for _, one, _ in pairs}.values():
        own = [run for run in one if run.name in copies]
        if own:
            of = {run.name: copies[run.name] for run in own}
            yield Copied(list(of.values()), own, reference, _of_copies(columns, of), _named(shares, of))


def _of_copies(columns: Columns, of: Mapping[str, Scaled]) -> Columns:
    losses = {name: columns.losses[copy.name] for name, copy in of.items() if copy.name in columns.losses}
    return replace(
        columns,
        losses={name: row for name, row in columns.losses.items() if name not in of} | losses,
        norms={**columns.norms, **{name: copy.norm for name, copy in of.items()}},
        ckas={**columns.ckas, **{name: columns.ckas.get(copy.name) for name, copy in of.items()}},
        connectivity=None,  # paths end at the trainings
    )


def _named(shares: Shares, of: Mapping[str, Scaled]) -> Shares:
    return {
        task: {name: held for name, held in by.items() if name not in of}
        | {name: by[copy.name] for name, copy in of.items() if copy.name in by}
        for task, by in shares.items()
    }


def scaled_row(made: Row, copies: Sequence[Scaled], norms: Mapping[str, float]) -> Row:
    """The row with the copies named, their norms and what they were multiplied by."""
    row, differences = made
    beside = [norm for name in row.reference_trainings if (norm := norms.get(name))]
    update = {
        "trainings": [copy.name for copy in copies],
        "norm_ratio": span(copy.norm / norm for copy, norm in product(copies, beside)),
        "factor": span(copy.factor for copy in copies),
    }
    return row.model_copy(update=update), differences
