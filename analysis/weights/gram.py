"""Rays, distances, projections and an analysis of variance of deltas, from the Gram of the stacked deltas alone.

Letters: M deltas, G the M x M Gram with G[i][j] = <dW_i, dW_j>, D the entries of one stacked delta. Any inner
product will do: the plain one (``geometry.gram``) or the activation-weighted one (``analysis.function.activations``).

Resolution: a Gram holds squares, so what is left of a delta after taking off nearly all of it, and a distance of
nearly equal deltas, are resolved to sqrt(eps), about 1e-8 of the norms. Below that they are rounding.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

Gram = Sequence[Sequence[float]] | np.ndarray
# Relative size below which an eigenvalue, or a sum of squares, is taken as rounding. It leaves a margin above that of
# a float64 Gram (1e-14 or so); by it unit deltas within 1e-6 of each other count as one direction.
TOLERANCE = 1e-12
RELABELLINGS = 9999


def cosine(gram: Gram, i: int, j: int) -> float | None:
    """Of deltas i and j; None where one is zero. Rounding may not take it past 1."""
    g = _matrix(gram)
    scale = math.sqrt(g[i, i]) * math.sqrt(g[j, j])
    return None if scale == 0 else max(-1.0, min(1.0, float(g[i, j]) / scale))


def along(gram: Gram, i: int, j: int) -> dict[str, float | None]:
    """The multiple of delta j that is nearest to delta i.

    Returns {"scale": <i, j> / <j, j>, "left_over": |i - scale j| / |i|}; left_over is the sine of their angle, so
    it is the same for (j, i), and the two scales multiply to cosine^2. For a zero j scale is None and left_over 1;
    for a zero i scale is 0 and left_over None.
    """
    g = _matrix(gram)
    found = cosine(g, i, j)
    missed = 1.0 if found is None else math.sqrt((1 - found) * (1 + found))
    return {
        "scale": float(g[i, j] / g[j, j]) if g[j, j] > 0 else None,
        "left_over": missed if g[i, i] > 0 else None,
    }


def projection(gram: Gram, target: int, onto: Sequence[int]) -> dict:
    """Least squares of delta ``target`` on the span of the deltas ``onto``.

    Returns {"coefficients": one for each of ``onto``, "left_over": the share of the target's norm outside the span,
    "rank": the span's dimension}. The deltas are scaled to unit norm and their Gram inverted on its eigenvalues
    above TOLERANCE of the largest. Where ``onto`` is dependent, the coefficients are those with the least squares
    over the unit deltas: duplicates share alike, a zero delta gets 0. left_over is None for a zero target, whose
    coefficients are 0. A random target has E left_over^2 = 1 - rank / D, which is nearly 1.
    """
    g = _matrix(gram)
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
    """Analysis of variance of the deltas by one label a delta, with its permutation test (Anderson 2001, Austral
    Ecology 26, pp. 32-46), from squared distances.

    total = sum |dW_m - mean|^2 = between + within. Returns deltas (how many entered), total, between, within,
    between_share, within_share, between_df, within_df, f (pseudo-F), p, relabellings (how many were compared) and
    exact. between_chance is the mean of between_share over all relabellings, between_df / (M - 1): with few deltas
    a group much lies between groups by chance. ``unit``: on deltas scaled to norm 1, their direction alone; zero
    deltas, which have none, are left out.

    p is the share of relabellings with an f no smaller: exact where at most ``relabellings`` arrangements exist,
    else over that many drawn from ``generator`` with the one at hand counted in (Phipson & Smyth 2010), and None
    without a generator. With one delta a label there is no within: f and p are None; they are so too where all
    deltas are equal or share one label. Few replicas have little power: p is never below one over the number of
    distinct groupings. ValueError if there is not one label a delta.
    """
    g = _matrix(gram)
    if len(labels) != len(g):
        raise ValueError(f"{len(labels)} labels for {len(g)} deltas")
    if unit:
        held = np.flatnonzero(g.diagonal() > 0)
        norms = np.sqrt(g.diagonal()[held])
        g, labels = g[np.ix_(held, held)] / np.outer(norms, norms), [labels[k] for k in held]
    number = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    codes = np.array([number[label] for label in labels], dtype=int)
    sizes, n = np.bincount(codes), len(codes)
    squares = np.maximum(0.0, g.diagonal()[:, None] + g.diagonal() - 2 * g)
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


def _matrix(gram: Gram) -> np.ndarray:
    g = np.asarray(gram, dtype=np.float64)
    if g.ndim != 2 or g.shape[0] != g.shape[1] or not np.isfinite(g).all() or (g.diagonal() < 0).any():
        raise ValueError(f"a Gram is square and finite with no negative diagonal, this is {g.shape}")
    return g


def _within(squares: np.ndarray, codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """N arrangements (N x M group numbers) -> N sums: a group's squared distances over its size."""
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
    """The share of relabellings whose within is at most ``bound``: f falls as within rises, since total stays, so
    within alone is compared, also where it is 0."""
    exact = math.factorial(len(codes)) // math.prod(math.factorial(size) for size in sizes.tolist()) <= most
    if not exact and generator is None:
        return {"p": None, "relabellings": 0, "exact": False}
    if generator is None or exact:
        drawn = np.array(list(_arrangements(sizes.tolist())))
    else:
        drawn = generator.permuted(np.tile(codes, (most, 1)), axis=1)
    hits, more = int((_within(squares, drawn, sizes) <= bound).sum()), 0 if exact else 1
    return {"p": (hits + more) / (len(drawn) + more), "relabellings": len(drawn), "exact": exact}


def _arrangements(left: list[int]) -> Iterator[tuple[int, ...]]:
    """Every distinct order of left[c] copies of each number c."""
    if not any(left):
        yield ()
    for code, copies in enumerate(left):
        if copies:
            for rest in _arrangements([n - (k == code) for k, n in enumerate(left)]):
                yield code, *rest
