"""Methods beside the reference at its norm: the rows of scaled copies of their trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from analysis.statistics.trainings import MethodDifference
from analysis.weights.replicas import Run
from results.function import Activations, Losses
from results.matched import MatchedRow, Span
from results.scaled import Scaled
from results.weights import MeasuredGeometry

Row = tuple[MatchedRow, list[MethodDifference]]


def at_norm(
    make: Callable[..., Row],
    by: Mapping[tuple[str, float | None], Sequence[Run]],
    reference: Sequence[Run],
    geometry: MeasuredGeometry | None,
    activations: Activations | None,
    losses: Sequence[Losses],
    shares: Mapping[str, Mapping[str, object]],
    scaled: Sequence[Scaled],
) -> list[Row]:
    """A row for each method and rate with scaled copies, beside the reference's trainings as they are.

    ``make`` makes a row of trainings that are alike but for their order of rows, ``by`` holds these by method and
    rate. It is given the copies' losses and verdicts under the names of the trainings that were scaled, so that one
    row has these and the trainings' cosines and angles.
    """
    copies = {copy.of: copy for copy in scaled}
    named = {copy.name: copy.of for copy in scaled}
    kept = {run.name for run in reference}
    losses = [
        row.model_copy(update={"name": named.get(row.name, row.name)}) for row in losses if row.name in {*kept, *named}
    ]
    shares = {
        task: {named.get(name, name): held for name, held in of.items() if name in {*kept, *named}}
        for task, of in shares.items()
    }
    rows = []
    for runs in by.values():
        own = [run for run in runs if run.name in copies]
        if own and reference:
            row, differences = make("norm", own, reference, geometry, activations, losses, shares)
            update = _scaled([copies[run.name] for run in own], reference, geometry)
            rows.append((row.model_copy(update=update), differences))
    return rows


def _scaled(copies: Sequence[Scaled], reference: Sequence[Run], geometry: MeasuredGeometry | None) -> dict[str, object]:
    """What a row says of the copies themselves."""
    norms = {copies[0].to: copies[0].reference_norm} | (geometry.norms if geometry else {})
    beside = [norm for run in reference if (norm := norms.get(run.name))]
    return {
        "trainings": [copy.name for copy in copies],
        "norm_ratio": _span([copy.norm / norm for copy, norm in product(copies, beside)]),
        "factor": _span([copy.factor for copy in copies]),
    }


def _span(values: Sequence[float]) -> Span | None:
    if not values:
        return None
    return Span(mean=sum(values) / len(values), low=min(values), high=max(values), pairs=len(values))
