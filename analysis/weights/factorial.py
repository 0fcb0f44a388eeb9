"""Which factor of a factorial of trainings moves the update, by how much and how surely, from the Gram of the deltas.

Letters: M cells (one delta each), D entries of a delta, X the M x D deltas, G = X X' their Gram (any inner product, see
``gram``), H the projection on what a term explains. A sum of squares is |H X|^2 = trace(H G): no delta is needed
(Anderson 2001, Austral Ecology 26, pp. 32-46; McArdle and Anderson 2001, Ecology 82, pp. 290-297). Names of terms:
"method" is a main effect, "method:rate" an interaction.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import reduce

import numpy as np
from scipy import stats

from analysis.statistics.sampling import LEVEL
from analysis.weights.factorial_design import Design, Term, build, indicators
from analysis.weights.factorial_permutation import permutation_test
from analysis.weights.gram import RELABELLINGS, TOLERANCE, Gram, as_matrix, directions, squared_distances

Factors = Mapping[str, Sequence[Hashable]]


def factorial_variance(
    gram: Gram,
    factors: Factors,
    terms: Sequence[str] | None = None,
    unit: bool = False,
    generator: np.random.Generator | None = None,
    permutations: int = RELABELLINGS,
) -> dict:
    """Analysis of variance of the deltas by several crossed factors, with permutation tests.

    ``factors``: of each factor one level per delta; deltas with equal levels of all are replicates. ``terms``: see
    ``factorial_design.build``. ``unit``: deltas are scaled to norm 1, so that only directions count; zero deltas are
    left out. ``permutations``: the most that are compared per term; 0: no tests.

    Sums of squares are of type II: what a term explains beyond all terms that do not contain it. In a balanced design
    these and the residual add to the total; else overlap is the rest: what several terms could explain, or negative.

    Returns deltas (how many were used), total (around the mean), levels (their number by factor), dropped (factors of
    one level, and so in no term), aliased (terms that others explain wholly: df 0, all else None), balanced, overlap,
    residual (sum_squares, df, mean_square, share, component, component_share) and terms, by name:

    - sum_squares, df, full_df (df in a complete crossing; more than df where cells or distinctions are absent),
      mean_square, share (of the total) and chance (its mean over all permutations of the deltas, df / (M - 1));
    - f: pseudo-F, mean square over that of the error, and error_df. The error is the residual, or, where that has no
      degrees of freedom, the terms that contain this one;
    - component: unbiased estimate of the variance that the term adds to a delta, by Henderson's method 3 (1953,
      Biometrics 9, pp. 226-252) with levels taken as drawn at random. It does not grow with the number of levels as
      sum_squares does, and is negative by chance if the true one is small. component_share: over the sum of all, the
      residual's with them; None where one of them is unknown;
    - p, p_floor, permuted, permutations, enumerated: see ``permutation_test``.

    What is undefined is None, and with df 0 all but df. ValueError: see ``build`` and ``gram.as_matrix``.
    """
    given = as_matrix(gram)
    kept, g = _used(given, unit)
    design = build(factors, len(given), terms, kept)
    rounding = TOLERANCE * float(np.trace(g))
    g = _centred(g)
    total = _clean(float(np.trace(g)), rounding)
    sums = {term.name: _clean(explained(term.own, g), rounding) for term in design.terms}
    left, left_df = _residual(design, g, rounding), design.residual_df
    noise = left / left_df if left_df > 0 else None
    components = _components(design, sums, noise)
    known = [*components.values(), noise]
    whole = sum(value for value in known if value is not None) if None not in known else 0.0

    def parts(value: float, df: int, component: float | None) -> dict:
        return {
            "sum_squares": value if df else None,
            "df": df,
            "mean_square": value / df if df else None,
            "share": value / total if total and df else None,
            "component": component,
            "component_share": component / whole if whole > 0 and component is not None else None,
        }

    rows = {}
    for term in design.terms:
        value, df = sums[term.name], term.own.shape[1]
        error, error_df = left, left_df
        if not left_df:
            error, error_df = _clean(explained(term.above, g), rounding), term.above.shape[1]
        rows[term.name] = {
            **parts(value, df, components[term.name]),
            "full_df": term.full_df,
            "chance": df / (design.cells - 1) if df else None,
            "f": (value / df) / (error / error_df) if df and error_df and error else None,
            "error_df": error_df if df else None,
            **permutation_test(design, term, g, rounding, generator, permutations),
        }
    return {
        "deltas": design.cells,
        "total": total,
        "levels": {name: int(codes.max()) + 1 for name, codes in design.codes.items()},
        "dropped": design.dropped,
        "aliased": [term.name for term in design.terms if not term.own.shape[1]],
        "balanced": design.balanced,
        "terms": rows,
        "residual": parts(left, max(left_df, 0), noise),
        "overlap": _clean(total - sum(sums.values()) - left, rounding),
    }


def jackknife(
    grams: Sequence[Gram],
    factors: Factors,
    terms: Sequence[str] | None = None,
    unit: bool = False,
    level: float = LEVEL,
) -> dict:
    """Standard error and interval of each term's share of the total, by leaving out one layer at a time.

    ``grams``: one per layer; their sum is the Gram of whole deltas. ``unit`` scales to norm 1 after the summation.
    Returns layers and shares, by term and for "residual": share (of all layers), se, low, high. With n layers and their
    leave-one-out shares s_k, se^2 = (n - 1) / n sum (s_k - mean)^2 (Tukey 1958), and the interval is share -+ t se with
    n - 1 degrees of freedom, within [0, 1]. It says how evenly the layers agree, as if they were draws, and knows
    nothing of other seeds. se, low and high are None with one layer, or where a share is undefined without one of the
    layers. ValueError if there is no layer or layers differ in shape.
    """
    layers = [as_matrix(gram) for gram in grams]
    if len({g.shape for g in layers}) != 1:
        raise ValueError(f"a jackknife needs layers of one shape, these are {sorted({g.shape for g in layers})}")
    n = len(layers)
    known: dict[bytes, Design] = {}  # by the deltas that are used

    def shares(g: np.ndarray) -> dict[str, float | None]:
        kept, used = _used(g, unit)
        if kept.tobytes() not in known:
            known[kept.tobytes()] = build(factors, len(g), terms, kept)
        return _shares(known[kept.tobytes()], used)

    # Sums without a layer, not differences from the whole: a layer with nearly all of the norm would leave rounding.
    without = [shares(reduce(np.add, layers[:k] + layers[k + 1 :])) for k in range(n)] if n > 1 else []
    quantile = float(stats.t.ppf(0.5 + level / 2, n - 1)) if n > 1 else math.nan
    result = {}
    for name, share in shares(reduce(np.add, layers)).items():
        others = [left_out.get(name) for left_out in without]
        found: dict[str, float | None] = {"share": share, "se": None, "low": None, "high": None}
        if share is not None and others and None not in others:
            values = np.array(others, dtype=np.float64)
            se = math.sqrt((n - 1) / n * float(((values - values.mean()) ** 2).sum()))
            found |= {"se": se, "low": max(0.0, share - quantile * se), "high": min(1.0, share + quantile * se)}
        result[name] = found
    return {"layers": n, "shares": result}


def distances(gram: Gram, factors: Factors) -> dict:
    """How far apart two deltas are that differ in one factor alone.

    Returns deltas, mean_square (the mean of |dW|^2 over all deltas), and for each of ``factors``, and for "replicates"
    (pairs that differ in none): pairs (their number), squared, squared_min and squared_max (|dW_i - dW_j|^2 over
    mean_square: the mean and the extremes over the pairs; 2 for orthogonal deltas of the mean size), and cosine,
    cosine_min and cosine_max over cosine_pairs (those without a zero delta). What is undefined is None.
    """
    g = as_matrix(gram)
    codes = build(factors, len(g), terms=()).codes
    differs = {name: own[:, None] != own for name, own in codes.items()}
    number = sum(differs.values(), start=np.zeros(g.shape, dtype=int))
    one = number == 1
    pairs = {name: one & differs[name] if name in differs else np.zeros_like(one) for name in factors}
    mean_square = float(g.diagonal().mean()) if len(g) else 0.0
    norms = np.sqrt(g.diagonal())
    scale = np.outer(norms, norms)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.where(scale > 0, np.clip(g / scale, -1, 1), np.nan)
        squared = squared_distances(g) / mean_square

    def summary(which: np.ndarray) -> dict:
        which = np.triu(which, 1)
        here = cosines[which]
        here = here[~np.isnan(here)]
        return {
            "pairs": int(which.sum()),
            **_spread("squared", squared[which] if mean_square else squared[:0]),
            "cosine_pairs": len(here),
            **_spread("cosine", here),
        }

    return {
        "deltas": len(g),
        "mean_square": mean_square,
        "factors": {name: summary(which) for name, which in pairs.items()},
        "replicates": summary(number == 0),
    }


def explained(basis: np.ndarray, g: np.ndarray) -> float:
    """trace(Q' G Q): the sum of squares on the span of an orthonormal basis Q."""
    return float((basis * (g @ basis)).sum())


def _used(g: np.ndarray, unit: bool) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the deltas that are used, and their Gram."""
    return directions(g) if unit else (np.arange(len(g)), g)


def _centred(g: np.ndarray) -> np.ndarray:
    """The Gram of the deltas around their mean."""
    if not len(g):
        return g
    rows = g.mean(axis=0)
    return g - rows - rows[:, None] + rows.mean()


def _clean(value: float, rounding: float) -> float:
    return value if abs(value) > rounding else 0.0


def _residual(design: Design, g: np.ndarray, rounding: float) -> float:
    return max(0.0, _clean(float(np.trace(g)) - explained(design.basis, g), rounding)) if design.residual_df else 0.0


def _shares(design: Design, g: np.ndarray) -> dict[str, float | None]:
    rounding = TOLERANCE * float(np.trace(g))
    g = _centred(g)
    total = _clean(float(np.trace(g)), rounding)
    sums = {term.name: (_clean(explained(term.own, g), rounding), term.own.shape[1]) for term in design.terms}
    sums["residual"] = _residual(design, g, rounding), design.residual_df
    return {name: value / total if total and df else None for name, (value, df) in sums.items()}


def _components(design: Design, sums: Mapping[str, float], noise: float | None) -> dict[str, float | None]:
    """Solves, from the interactions down, E sum_squares_T = df_T noise + sum_U k_TU component_U, where U is T or a term
    that contains it, and k_TU = trace(H_T Z_U Z_U') with the indicators Z_U of U's combinations of levels."""
    found: dict[str, float | None] = {}
    for term in sorted(design.terms, key=lambda term: -len(term.factors)):
        df = term.own.shape[1]
        value: float | None = None if noise is None or not df else sums[term.name] - df * noise
        for other in (other for other in design.terms if set(other.factors) > set(term.factors)):
            component = found[other.name]
            value = None if value is None or component is None else value - _weight(term, other) * component
        found[term.name] = None if value is None else value / _weight(term, term)
    return {term.name: found[term.name] for term in design.terms}


def _weight(term: Term, other: Term) -> float:
    return float(((indicators(other.groups).T @ term.own) ** 2).sum())


def _spread(name: str, values: np.ndarray) -> dict[str, float | None]:
    numbers = (values.mean(), values.min(), values.max()) if len(values) else (None, None, None)
    keys = (name, f"{name}_min", f"{name}_max")
    return {key: None if value is None else float(value) for key, value in zip(keys, numbers, strict=True)}
