"""Methods beside the reference at equal settings: all trainings of both, with what other trainings would change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from analysis.statistics.power import trainings_needed
from analysis.statistics.significance import holm
from analysis.statistics.trainings import MethodDifference, method_difference
from analysis.weights.replicas import Run, families, noise, runs
from orchestrator.planning.matches import AMOUNTS, Match, equal, nearest
from orchestrator.results.best_rate import BestRates, at_best
from orchestrator.results.matched_columns import Columns, ckas_to_base, mean, span, trained_families
from orchestrator.results.matched_norm import at_norm, scaled_row
from results.function import Activations, Connectivity, Losses, Similarity
from results.matched import AccuracyDifference, MatchedRow, Settled, Span
from results.scaled import CkaToBase, Scaled
from results.trainings import AnyTraining, Trained
from results.weights import MeasuredGeometry

LEVEL = 0.05
Compared = tuple[Match, Sequence[Run], Sequence[Run]]  # what makes them a row, the method's runs, the reference's
Shares = Mapping[str, Mapping[str, np.ndarray]]  # by task and model: the share right of each problem


def matched(
    trainings: Sequence[AnyTraining],
    reference: str,
    geometry: MeasuredGeometry | None,
    activations: Activations | None,
    losses: Sequence[Losses],
    shares: Shares,
    *,
    similarity: Similarity | None = None,
    connectivity: Connectivity | None = None,
    scaled: Sequence[Scaled] = (),
    scaled_cka: Sequence[CkaToBase] = (),
    best: BestRates | None = None,
    wanted: Collection[Match] = (),
) -> list[MatchedRow]:
    """A row for each method and rate at which the reference was trained too, for its own rate beside the reference's
    own, for the two best rates where both were searched, for trainings at one rate that agree in steps, rows, tokens or
    problems where the methods' own do not, and for each rate with scaled copies.

    Trainings whose update is noise are left out. Of the ``wanted`` kinds alone, of all where none is named.
    """
    marked = noise(map(vars, trainings))
    done = {row.name: row for row in trainings if isinstance(row, Trained) and row.name not in marked}
    norms, by_model = geometry.norms if geometry else {}, {row.name: row for row in losses}
    columns = Columns(done, norms, by_model, ckas_to_base(similarity, scaled_cka), connectivity)
    rows: list[tuple[MatchedRow, list[MethodDifference]]] = []
    told: set[tuple[str, ...]] = set()
    at_rates = list(_at_rates(trainings, list(done), reference, best or {}))
    for how, one, two in (*at_rates, *_at_amounts(trainings, done, reference)):
        named = tuple(run.name for run in (*one, *two))
        if (named not in told or how == "best_rate") and (not wanted or how in wanted):
            told.add(named)
            rows.append(_row(how, one, two, geometry, activations, shares, columns))
    if not wanted or "norm" in wanted:
        copied = at_norm(at_rates, scaled, columns, shares)
        rows += [scaled_row(_row("norm", one, two, geometry, activations, held, of), copies, norms)
                 for copies, one, two, of, held in copied]  # fmt: skip
    return _adjusted(rows)


def _at_rates(
    trainings: Sequence[AnyTraining], done: Sequence[str], reference: str, best: BestRates
) -> Iterator[Compared]:
    """Every method and variant at each rate of the reference, at its own rate beside the reference's own, and at its
    best beside the reference's best."""
    known = families(runs(map(vars, trainings), done))
    own = {training.name: training for training in trainings if training.role in ("method", "variant")}
    if reference not in own:
        return
    place = runs(map(vars, trainings), [reference])[0].family[2:]  # all but method and learning rate
    by = {key[:2]: of for key, of in known.items() if key[2:] == place}
    for method, training in own.items():
        rates = sorted(rate for name, rate in by if name == method and rate is not None)
        pairs: list[tuple[Match, float, float]] = [("learning_rate", rate, rate) for rate in rates]
        if training.learning_rate != own[reference].learning_rate:
            pairs.insert(0, ("as_published", training.learning_rate, own[reference].learning_rate))
        pairs += at_best(method, reference, best)
        for how, rate, beside in pairs if method != reference else ():
            one, two = by.get((method, rate)), by.get((reference, beside))
            if one and two:
                yield how, one, two


def _at_amounts(trainings: Sequence[AnyTraining], done: Mapping[str, Trained], reference: str) -> Iterator[Compared]:
    """For each method, rate and amount the nearest trainings that agree in it."""
    own = next((training for training in trainings if training.name == reference), None)
    if own is None:
        return
    known, start = trained_families(done), (own.init_seed, own.start)
    for method in dict.fromkeys(family.method for family in known if family.method != own.method):
        for rate in sorted({family.learning_rate for family in known if family.method == method}):
            for amount in AMOUNTS:
                if pair := nearest(known, (method, own.method), rate, start, amount):
                    one, two = (runs(map(vars, trainings), family.names) for family in pair)
                    yield amount, one, two


def _row(
    how: Match,
    one: Sequence[Run],
    two: Sequence[Run],
    geometry: MeasuredGeometry | None,
    activations: Activations | None,
    shares: Shares,
    columns: Columns,
) -> tuple[MatchedRow, list[MethodDifference]]:
    names, others = [run.name for run in one], [run.name for run in two]
    norms = geometry.norms if geometry else {}
    between = list(product(names, others))
    repeats = [*combinations(names, 2), *combinations(others, 2)]
    differences: list[tuple[str, MethodDifference]] = []
    for task, of in shares.items():
        theirs, its = ([of[name] for name in held if name in of] for held in (others, names))
        if its and theirs and len(its[0]) > 1:
            differences.append((task, method_difference(np.stack(theirs), np.stack(its))))
    cosine = geometry.cosine if geometry else lambda a, b: None
    weighted = activations.cosine if activations else lambda a, b: None
    row = MatchedRow(
        method=one[0].method,
        to=two[0].method,
        matched=_words(how),
        equal=[_words(name) for name in equal(columns.family(names), columns.family(others))],
        learning_rate=one[0].learning_rate or 0.0,
        reference_rate=two[0].learning_rate or 0.0,
        trainings=names,
        reference_trainings=others,
        cosine=_over(between, cosine),
        floor=_over(repeats, cosine),
        weighted=_over(between, weighted),
        angle_min=_over(between, lambda a, b: _smallest_angle(geometry, a, b)),
        norm_ratio=span(norms[a] / norms[b] for a, b in between if norms.get(a) and norms.get(b)),
        **columns.of(names, others),
        kl_to_base=mean(columns.loss(name, "kl_to_base") for name in names),
        reference_kl=mean(columns.loss(name, "kl_to_base") for name in others),
        accuracy=[_accuracy(task, found) for task, found in differences],
    )
    return row, [found for _, found in differences]


def _words(kind: Match) -> Any:
    """A kind of match as the results call it."""
    return kind.replace("_", " ")


def _over(pairs: Iterable[tuple[str, str]], measure: Callable[[str, str], float | None]) -> Span | None:
    return span(value for a, b in pairs if (value := measure(a, b)) is not None)


def _smallest_angle(geometry: MeasuredGeometry | None, a: str, b: str) -> float | None:
    pair = geometry.pair(a, b) if geometry else None
    return pair.angle_min_median_deg if pair else None


def _accuracy(task: str, found: MethodDifference) -> AccuracyDifference:
    low, high = found.interval or (None, None)
    return AccuracyDifference(
        task=task,
        trainings=found.trainings[1],
        reference_trainings=found.trainings[0],
        difference=found.difference,
        low=low,
        high=high,
        p=found.p,
        p_holm=found.p,
        sd_trainings=None if found.between is None else float(np.sqrt(found.between)),
        sd_problems=found.problem_error,
        pooled=found.pooled,
        settled=None,
    )


def _adjusted(rows: Sequence[tuple[MatchedRow, Sequence[MethodDifference]]]) -> list[MatchedRow]:
    """With p adjusted over the rows of each task, and what would settle those that are not told."""
    places: dict[str, list[tuple[int, int]]] = {}
    for i, (row, _) in enumerate(rows):
        for j, accuracy in enumerate(row.accuracy):
            if accuracy.p is not None:
                places.setdefault(accuracy.task, []).append((i, j))
    changed: dict[tuple[int, int], AccuracyDifference] = {}
    for at in places.values():
        p = [rows[i][0].accuracy[j].p for i, j in at]
        for (i, j), adjusted in zip(at, holm([value for value in p if value is not None]), strict=True):
            settled = None if adjusted < LEVEL else _settled(rows[i][1][j], LEVEL / len(at))
            changed[i, j] = rows[i][0].accuracy[j].model_copy(update={"p_holm": adjusted, "settled": settled})
    return [
        row.model_copy(update={"accuracy": [changed.get((i, j), held) for j, held in enumerate(row.accuracy)]})
        for i, (row, _) in enumerate(rows)
    ]


def _settled(found: MethodDifference, alpha: float) -> Settled | None:
    """At Holm's first step, so that what would settle one row does so among all."""
    parts = found.between, found.interaction, found.residual
    if found.difference == 0 or None in parts or not any(parts):
        return None
    needed = trainings_needed(found.difference, *parts, found.problems, alpha=alpha)  # type: ignore[arg-type]  # none is None
    return Settled(trainings=needed.trainings, problems=needed.problems)
