"""Nearest multiples, projections and an analysis of variance of deltas, from the Gram of the stacked deltas.

Letters: M deltas, G the M x M Gram with G[i][j] = <dW_i, dW_j>, D the number of entries of one stacked delta. Any inner
product works: the plain one (``geometry.gram``) or the activation-weighted one (``analysis.function.activations``).

Resolution: a Gram holds squares, so small residuals and distances of nearly equal deltas are resolved to sqrt(eps),
about 1e-8 of the norms. Below that they are rounding.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

Gram = Sequence[Sequence[float]] | np.ndarray
# Relative size below which an eigenvalue or a sum of squares counts as rounding: a margin above the rounding of a
# float64 Gram (about 1e-14). Unit deltas within 1e-6 of each other therefore count as one direction.
TOLERANCE = 1e-12
RELABELLINGS = 9999


def cosine(gram: Gram, i: int, j: int) -> float | None:
    """Cosine of deltas i and j, clipped to [-1, 1]; None if one is zero."""
    return cosines(gram, [(i, j)])[0]


def cosines(gram: Gram, pairs: Iterable[tuple[int, int]]) -> list[float | None]:
    """``cosine`` of each of the pairs."""
    g = as_matrix(gram)
    norms = np.sqrt(g.diagonal()).tolist()
    scales = ((i, j, norms[i] * norms[j]) for i, j in pairs)
    return [None if scale == 0 else max(-1.0, min(1.0, float(g[i, j]) / scale)) for i, j, scale in scales]


def along(gram: Gram, i: int, j: int) -> dict[str, float | None]:
    """The multiple of delta j that is nearest to delta i.

    Returns {"scale": <i, j> / <j, j>, "left_over": |i - scale j| / |i|}. left_over is the sine of their angle, the
    same for (j, i), and the product of the two scales is cosine^2. For a zero j scale is None and left_over 1; for a
    zero i scale is 0 and left_over None.
    """
    g = as_matrix(gram)
    cos = cosine(g, i, j)
    missed = 1.0 if cos is None else math.sqrt((1 - cos) * (1 + cos))
    return {
        "scale": float(g[i, j] / g[j, j]) if g[j, j] > 0 else None,
        "left_over": missed if g[i, i] > 0 else None,
    }


def projection(gram: Gram, target: int, onto: Sequence[int]) -> dict:
    """Least-squares projection of delta ``target`` on the span of the deltas ``onto``.

    Returns {"coefficients": one for each of ``onto``, "left_over": the fraction of the target's norm outside the span,
    "rank": the span's dimension}. The deltas are scaled to unit norm and their Gram inverted on its eigenvalues
    above TOLERANCE of the largest. If ``onto`` is dependent, the coefficients are the minimum-norm solution over the
    unit deltas: duplicates have equal coefficients, a zero delta has 0. For a zero target left_over is None and all
    coefficients are 0. A random target has E left_over^2 = 1 - rank / D, nearly 1.
    """
    g = as_matrix(gram)
    norms = np.sqrt(g.diagonal())
    places = [place for place, k in enumerate(onto) if norms[k] > 0]
    used = [onto[place] for place in places]
    values, vectors = np.linalg.eigh(g[np.ix_(used, used)] / np.outer(norms[used], norms[used]))
    keep = values > TOLERANCE * values.max(initial=0.0)
    coefficients = np.zeros(len(onto))
    left_over = None
    if norms[target] > 0:
        onto_axes = vectors[:, keep].T @ (g[target, used] / (norms[target] * norms[used]))
        unit = vectors[:, keep] @ (onto_axes / values[keep])
        coefficients[places] = unit * norms[target] / norms[used]
        left_over = math.sqrt(min(1.0, max(0.0, 1 - float((onto_axes**2 / values[keep]).sum()))))
    return {"coefficients": coefficients.tolist(), "left_over": left_over, "rank": int(keep.sum())}


def variance(
    gram: Gram,
    labels: Sequence[Hashable],
    unit: bool = False,
    generator: np.random.Generator | None = None,
    relabellings: int = RELABELLINGS,
) -> dict:
    """Analysis of variance of the deltas by label, with a permutation test, from squared distances (Anderson 2001,
    Austral Ecology 26, pp. 32-46).

    total = sum |dW_m - mean|^2 = between + within. Returns deltas (how many were used), total, between, within,
    between_share, within_share, between_df, within_df, f (pseudo-F), p, relabellings (how many were compared) and
    exact. between_chance is the mean of between_share over all relabellings, between_df / (M - 1), which is large
    with few deltas per group. ``unit``: deltas are scaled to norm 1, so that only directions count; zero deltas are
    left out.

    p is the fraction of relabellings with an f at least as large: exact if at most ``relabellings`` arrangements exist,
    else over that many drawn from ``generator`` plus the given one (Phipson & Smyth 2010), and None without a
    generator. f and p are None if every label has one delta, all deltas are equal or all share one label. Few
    replicas have little power: p is never below one over the number of distinct groupings. ValueError if the numbers
    of labels and deltas differ.
    """
    g = as_matrix(gram)
    if len(labels) != len(g):
        raise ValueError(f"{len(labels)} labels for {len(g)} deltas")
    if unit:
        held, g = directions(g)
        labels = [labels[k] for k in held]
    number = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    codes = np.array([number[label] for label in labels], dtype=int)
    sizes, n = np.bincount(codes), len(codes)
    squares = squared_distances(g)
    rounding = TOLERANCE * float(np.trace(g))
    spread = float(_within(squares, codes[None], sizes)[0])
    around_mean = float(squares.sum()) / (2 * max(n, 1))
    between, within = (part if part > rounding else 0.0 for part in (around_mean - spread, spread))
    total = between + within
    between_df, within_df = max(len(sizes) - 1, 0), n - len(sizes)
    test: dict = {"p": None, "relabellings": 0, "exact": False}
    if total and between_df and within_df:
        test = _test(squares, codes, sizes, spread + rounding, generator, relabellings)
    return {
        "deltas": n,
        "total": total,
        "between": between,
        "within": within,
        "between_share": between / total if total else None,
        "within_share": within / total if total else None,
        "between_chance": between_df / (n - 1) if n > 1 else None,
        "between_df": between_df,
        "within_df": within_df,
        "f": (between / between_df) / (within / within_df) if within and between_df else None,
        **test,
    }


def as_matrix(gram: Gram) -> np.ndarray:
    """The Gram in float64. ValueError if it is not square and finite with no negative diagonal."""
    g = np.asarray(gram, dtype=np.float64)
    if g.ndim != 2 or g.shape[0] != g.shape[1] or not np.isfinite(g).all() or (g.diagonal() < 0).any():
        raise ValueError(f"a Gram is square and finite with no negative diagonal, this is {g.shape}")
    return g


def directions(g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deltas scaled to norm 1, zero deltas left out: the indices of those that are kept, and their Gram."""
    held = np.flatnonzero(g.diagonal() > 0)
    norms = np.sqrt(g.diagonal()[held])
    return held, g[np.ix_(held, held)] / np.outer(norms, norms)


def squared_distances(g: np.ndarray) -> np.ndarray:
    """|dW_i - dW_j|^2 for every pair."""
    return np.maximum(0.0, g.diagonal()[:, None] + g.diagonal() - 2 * g)


def _within(squares: np.ndarray, codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """N arrangements (N x M group numbers) -> N within-group sums of squares."""
    members = (codes[:, :, None] == np.arange(len(sizes))).astype(np.float64)
    return ((squares @ members * members).sum(1) / (2 * sizes)).sum(1)


def _test(
    squares: np.ndarray,
    codes: np.ndarray,
    sizes: np.ndarray,
    bound: float,
    generator: np.random.Generator | None,
    most: int,
) -> dict:
    """p: the fraction of relabellings whose within sum is at most ``bound``. The total is constant, so a larger f is a
    smaller within sum, which is defined also where f is not."""
    exact = math.factorial(len(codes)) // math.prod(math.factorial(size) for size in sizes.tolist()) <= most
    if not exact and generator is None:
        return {"p": None, "relabellings": 0, "exact": False}
    if generator is None or exact:
        drawn = np.array(list(arrangements(sizes.tolist())))
    else:
        drawn = generator.permuted(np.tile(codes, (most, 1)), axis=1)
    hits, more = int((_within(squares, drawn, sizes) <= bound).sum()), 0 if exact else 1
    return {"p": (hits + more) / (len(drawn) + more), "relabellings": len(drawn), "exact": exact}


def arrangements(left: list[int]) -> Iterator[tuple[int, ...]]:
    """Every distinct order of left[c] copies of each number c."""
    if not any(left):
        yield ()
    for code, copies in enumerate(left):
        if copies:
            for rest in arrangements([n - (k == code) for k, n in enumerate(left)]):
                yield code, *rest
