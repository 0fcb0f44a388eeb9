"""Attribution: from the Grams and the trainings' factors to what moves the updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.statistics.significance import holm
from analysis.weights.factorial import distances, factorial_variance, jackknife
from analysis.weights.replicas import noise
from results.attribution import Attribution, Effect, Levels, OneFactor, Subject, Term, VarianceBy
from results.function import Activations
from results.trainings import Training
from results.weights import MeasuredGeometry

FACTORS = ("method", "learning_rate", "init_seed", "order_seed", "start")
SEPARATOR = ":"  # between the two factors of an interaction's name
PERMUTATIONS, FULL = 1999, 100  # of as many trainings as FULL or fewer
LEAST: dict[Subject, int] = {"direction": 249, "update": 99, "effect": 99}  # of very many: the direction's are read


def attribution(
    geometry: MeasuredGeometry,
    activations: Activations | None,
    trainings: Sequence[Training],
    seed: int,
    by_layer: np.ndarray | None = None,
) -> Attribution | None:
    """What moves the updates, by factor; None where fewer than two factors differ, or nothing would be left to compare.

    Trainings whose update is zero or noise are left out; of the variance also those that began from the other random
    factor than the first (``start``), since any two of both kinds lie apart whatever they learned. ``by_layer`` are the
    layers' Grams, L x M x M, of a geometry that does not list every pair by layer.
    """
    known = {training.name: training for training in trainings}
    marked = noise(map(vars, trainings))
    names = [row.name for row in geometry.adapters if row.norm != 0 and row.name in known and row.name not in marked]
    factors = levels([known[name] for name in names])
    differing = {factor: column for factor, column in factors.items() if len(set(column)) > 1}
    if len(differing) < 2 or len(names) < 3:
        return None
    every = [row.name for row in geometry.adapters]
    plain = _among(geometry.gram, every, names)
    weighted = None
    if activations is not None:
        weighted = _among(activations.gram, [row.name for row in activations.adapters], names)
    kept = [i for i, start in enumerate(factors["start"]) if start == factors["start"][0]]
    crossed = {factor: [column[i] for i in kept] for factor, column in differing.items() if factor != "start"}
    if by_layer is None:
        grams: Iterable[np.ndarray] = _layer_grams(geometry, names)
    else:
        grams = (_among(layer, every, names) for layer in by_layer)
    layers = [layer[np.ix_(kept, kept)] for layer in grams]
    own = plain[np.ix_(kept, kept)]
    variance = [
        _variance("update", own, crossed, False, seed, layers),
        _variance("direction", own, crossed, True, seed, layers),
    ]
    if weighted is not None:
        variance.append(_variance("effect", weighted[np.ix_(kept, kept)], crossed, True, seed))
    rows = [dict(zip(differing, at, strict=True)) for at in zip(*differing.values(), strict=True)]
    return Attribution(
        trainings=[Levels(name=name, levels=row) for name, row in zip(names, rows, strict=True)],
        one_factor=_one_factor(plain, weighted, differing),
        variance=variance,
    )


def levels(trainings: Sequence[Training]) -> dict[str, list[Any]]:
    """Each factor's level of each training; a setting that a training does not vary has the level "own"."""
    varied = sorted({key for training in trainings for key in training.varied or {} if key != "adapter.start"})
    columns = {factor: [getattr(training, factor) for training in trainings] for factor in FACTORS}
    return columns | {key: [str((t.varied or {}).get(key, "own")) for t in trainings] for key in varied}


def _among(gram: Sequence[Sequence[float]] | np.ndarray, every: Sequence[str], names: Sequence[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(every)}
    rows = [place[name] for name in names]
    return np.asarray(gram, dtype=np.float64)[np.ix_(rows, rows)]


def _layer_grams(geometry: MeasuredGeometry, names: Sequence[str]) -> list[np.ndarray]:
    """The Gram of each layer, from its norms and cosines."""
    place = {name: i for i, name in enumerate(names)}
    norms: dict[tuple[str | None, int], np.ndarray] = {}
    for size in geometry.adapter_layers:
        if size.name in place:
            norms.setdefault((size.stack, size.layer), np.zeros(len(names)))[place[size.name]] = size.norm
    grams = {layer: np.diag(of**2) for layer, of in norms.items()}
    for pair in geometry.layers:
        if pair.cosine is not None and pair.a in place and pair.b in place:
            i, j, of = place[pair.a], place[pair.b], norms[pair.stack, pair.layer]
            grams[pair.stack, pair.layer][[i, j], [j, i]] = pair.cosine * of[i] * of[j]
    return list(grams.values())


def _variance(
    of: Subject,
    gram: np.ndarray,
    factors: Mapping[str, Sequence[Any]],
    unit: bool,
    seed: int,
    layers: Sequence[np.ndarray] = (),
) -> VarianceBy:
    generator = np.random.default_rng(seed)
    # A permutation takes time as the square of the trainings.
    permutations = PERMUTATIONS if len(gram) <= FULL else max(LEAST[of], PERMUTATIONS * FULL**2 // len(gram) ** 2)
    found = factorial_variance(gram, factors, unit=unit, generator=generator, permutations=permutations)
    spread = jackknife(layers, factors, unit=unit)["shares"] if layers else {}

    def ends(name: str) -> dict[str, Any]:
        return {end: spread.get(name, {}).get(end) for end in ("low", "high")}

    tested = {name: term["p"] for name, term in found["terms"].items() if term["p"] is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    terms = [
        Term(
            factors=name.split(SEPARATOR),
            **{key: term[key] for key in ("df", "share", "chance", "f", "error_df", "p", "p_floor")},
            p_holm=adjusted.get(name),
            component=term["component_share"],
            **ends(name),
        )
        for name, term in found["terms"].items()
        if term["df"]
    ]
    residual = found["residual"]
    return VarianceBy(
        of=of,
        deltas=found["deltas"],
        total=found["total"],
        balanced=found["balanced"],
        terms=terms,
        residual=Effect(df=residual["df"], share=residual["share"], component=residual["component_share"],
                        **ends("residual")),
        overlap=found["overlap"] / found["total"] if found["total"] else None,
        aliased=found["aliased"],
    )  # fmt: skip


def _one_factor(gram: np.ndarray, weighted: np.ndarray | None, factors: Mapping[str, Sequence[Any]]) -> list[OneFactor]:
    plain = distances(gram, factors)["factors"]
    effects = distances(weighted, factors)["factors"] if weighted is not None else {}
    keys = ("pairs", "squared", "cosine", "cosine_min", "cosine_max")
    return [
        OneFactor(factor=factor, **{key: row[key] for key in keys}, weighted=effects.get(factor, {}).get("cosine"))
        for factor, row in plain.items()
        if row["pairs"]
    ]
