"""What the trainings are beside the one that all others are compared to: floors, directions, the headline's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from analysis.weights import directions as gram
from analysis.weights.replicas import noise, repeats, runs
from results.headline import Listed, Matched
from results.trainings import Training
from results.weights import Directions, Floors, Geometry, MeasuredGeometry, Pair


def with_floors(geometry: MeasuredGeometry, trainings: Sequence[Training], reference: str) -> Geometry:
    """The geometry with what another order, another initial A, another learning rate alone give: every pair of runs
    that differ so, the reference's own first, and what rounding gives."""
    known = runs(map(vars, trainings), [adapter.name for adapter in geometry.adapters])
    methods = {run.name: run.method for run in known}
    floors: dict[str, list[Pair]] = {}
    for kind, names in repeats(known).items():
        ordered = sorted(names, key=lambda pair: methods[pair[0]] != methods.get(reference, reference))
        pairs = [pair for a, b in ordered if (pair := geometry.pair(a, b)) is not None]
        floors |= {kind: pairs} if pairs else {}
    return Geometry(**dict(geometry), floors=Floors.model_validate(floors | {"itself": geometry.itself}))


def directions(
    geometry: MeasuredGeometry,
    trainings: Sequence[Training],
    reference: str,
    seed: int = 0,
    method_of: Mapping[str, str] | None = None,
) -> Directions | None:
    """What the Gram tells (``weights.directions``) of the updates that have a direction: neither zero nor noise.

    None where the reference has none.
    """
    rows = [vars(training) for training in trainings]
    marked = noise(rows)
    kept = [i for i, row in enumerate(geometry.adapters) if row.norm != 0 and row.name not in marked]
    names = [geometry.adapters[i].name for i in kept]
    if reference not in names:
        return None
    inner = [[geometry.gram[i][j] for j in kept] for i in kept]
    return Directions.model_validate(gram.directions(runs(rows, names), inner, reference, method_of, seed))


def listed(names: Sequence[str], trainings: Sequence[Training], reference: str) -> Iterator[Listed]:
    """What is compared to the reference: of the models called ``names`` all that are no floor."""
    known = {training.name: training for training in trainings}
    rate = known[reference].learning_rate if reference in known else None
    for name in names:
        training = known.get(name)
        if training is None or training.role in ("method", "sweep", "variant"):
            yield Listed(name=name, compared_to=reference, matched=_matched(training, rate))


def _matched(training: Training | None, rate: float | None) -> Matched | None:
    if training is None:
        return None
    if training.role == "method":
        return "as published"
    return "learning rate" if training.learning_rate == rate else "sweep"
