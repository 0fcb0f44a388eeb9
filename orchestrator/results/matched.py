"""Methods beside the reference at equal settings: all trainings of both, with what other trainings would change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from analysis.statistics.power import trainings_needed
from analysis.statistics.significance import holm
from analysis.statistics.trainings import MethodDifference, method_difference
from analysis.weights.replicas import Run, families, noise, runs
from orchestrator.results.best_rate import BestRates, at_best
from results.function import Activations, Losses
from results.matched import AccuracyDifference, MatchedRow, Settled, Span
from results.trainings import AnyTraining
from results.weights import MeasuredGeometry

LEVEL = 0.05
Shares = Mapping[str, Mapping[str, np.ndarray]]  # by task and model: the share right of each problem


def matched(
    trainings: Sequence[AnyTraining],
    reference: str,
    geometry: MeasuredGeometry | None,
    activations: Activations | None,
    losses: Sequence[Losses],
    shares: Shares,
    best: BestRates | None = None,
) -> list[MatchedRow]:
    """A row for each method and rate at which the reference was trained too, for its own rate beside the
    reference's own, and for the two best rates where both were searched. Trainings whose update is noise are left
    out."""
    marked = noise(map(vars, trainings))
    done = [training.name for training in trainings if training.name not in marked and training.status == "done"]
    known = families(runs(map(vars, trainings), done))
    own = {training.name: training for training in trainings if training.role in ("method", "variant")}
    if reference not in own:
        return []
    usual = runs(map(vars, trainings), [reference])[0].family
    place = usual[2:]  # all but method and learning rate
    by = {key[:2]: of for key, of in known.items() if key[2:] == place}
    rows: list[tuple[MatchedRow, list[MethodDifference]]] = []
    for method, training in own.items():
        rates = sorted(rate for name, rate in by if name == method and rate is not None)
        pairs = [("learning rate", rate, rate) for rate in rates]
        if training.learning_rate != own[reference].learning_rate:
            pairs.insert(0, ("as published", training.learning_rate, own[reference].learning_rate))
        pairs += at_best(method, reference, best or {})
        for how, rate, beside in pairs if method != reference else ():
            one, two = by.get((method, rate)), by.get((reference, beside))
            if one and two:
                rows.append(_row(how, one, two, geometry, activations, losses, shares))
    return _adjusted(rows)


def _row(
    how: Any,
    one: Sequence[Run],
    two: Sequence[Run],
    geometry: MeasuredGeometry | None,
    activations: Activations | None,
    losses: Sequence[Losses],
    shares: Shares,
) -> tuple[MatchedRow, list[MethodDifference]]:
    names, others = [run.name for run in one], [run.name for run in two]
    norms = geometry.norms if geometry else {}
    kl = {row.name: row.kl_to_base for row in losses}
    between = list(product(names, others))
    repeats = [*combinations(names, 2), *combinations(others, 2)]
    differences: list[tuple[str, MethodDifference]] = []
    for task, of in shares.items():
        theirs, its = ([of[name] for name in held if name in of] for held in (others, names))
        if its and theirs and len(its[0]) > 1:
            differences.append((task, method_difference(np.stack(theirs), np.stack(its))))
    pair = geometry.pair if geometry else lambda a, b: None
    weighted = activations.pair if activations else lambda a, b: None
    row = MatchedRow(
        method=one[0].method,
        to=two[0].method,
        matched=how,
        learning_rate=one[0].learning_rate or 0.0,
        reference_rate=two[0].learning_rate or 0.0,
        trainings=names,
        reference_trainings=others,
        cosine=_over(between, pair, "cosine"),
        floor=_over(repeats, pair, "cosine"),
        weighted=_over(between, weighted, "cosine"),
        angle_min=_over(between, pair, "angle_min_median_deg"),
        norm_ratio=_span(norms[a] / norms[b] for a, b in between if norms.get(a) and norms.get(b)),
        kl_to_base=_mean(kl.get(name) for name in names),
        reference_kl=_mean(kl.get(name) for name in others),
        accuracy=[_accuracy(task, found) for task, found in differences],
    )
    return row, [found for _, found in differences]


def _over(pairs: Iterable[tuple[str, str]], look_up: Callable[[str, str], Any], what: str) -> Span | None:
    found = (look_up(a, b) for a, b in pairs)
    return _span(value for row in found if row is not None and (value := getattr(row, what)) is not None)


def _span(values: Iterable[float]) -> Span | None:
    known = list(values)
    return Span(mean=float(np.mean(known)), low=min(known), high=max(known), pairs=len(known)) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


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
