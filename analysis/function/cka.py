"""Debiased linear CKA of two models' activations on the same prompts, with a shuffled control and an interval.

Letters: n prompts, p features. Sources: Kornblith 2019 (1905.00414), section 3 (biased); Song 2012 (JMLR 13),
section 3 (unbiased HSIC), used for CKA by Nguyen 2021 (2010.15327), equation 3. In U-centred form (Szekely
2014) unbiased HSIC is an inner product, so the debiased CKA too lies within [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from scipy import stats
from torch import Generator, Tensor

CONSTANT = 1e-6  # ten times float32's rounding error
ROUNDING = 1e-12
LEAST_ROWS = 4  # unbiased HSIC divides by n (n - 3)
GROUPS = 10
DRAWS = 20


def gram(x: Tensor) -> Tensor:
    """n x p float32 features -> n x n float64 Gram of the centred features, all that CKA needs.

    Features whose variation over the prompts is below CONSTANT of their norm are taken as constant (zeros): that is
    float32 rounding. It occurs where every prompt ends in the same token, so that the first layer's input is the same.
    """
    values = x.double()
    centred = values - values.mean(0)
    if centred.norm() <= CONSTANT * values.norm():
        centred = torch.zeros_like(centred)
    return centred @ centred.T


def linear_cka(gram_x: Tensor, gram_y: Tensor, debiased: bool = True) -> float | None:
    """CKA of two Grams of the same n prompts.

    None for fewer than 4 prompts (debiased) or 2 (biased), or features that are constant over the prompts.
    """
    if gram_x.shape != gram_y.shape:
        raise ValueError(f"CKA compares the same prompts: Grams are {tuple(gram_x.shape)}, {tuple(gram_y.shape)}")
    if gram_x.shape[0] < (LEAST_ROWS if debiased else 2):
        return None
    centre = _u_centred if debiased else _centred
    return _cosine(centre(gram_x), centre(gram_y))


def shuffled(gram_x: Tensor, gram_y: Tensor, generator: Generator, draws: int = DRAWS) -> float | None:
    """Control: mean debiased CKA over ``draws`` permutations of the second model's prompts."""
    if gram_x.shape[0] < LEAST_ROWS:
        return None
    first, second = _u_centred(gram_x), _u_centred(gram_y)
    values = []
    for _ in range(draws):
        order = torch.randperm(gram_x.shape[0], generator=generator)
        values.append(_cosine(first, second[order][:, order]))
    return _mean(values)


def jackknife(gram_x: Tensor, gram_y: Tensor, groups: int = GROUPS, level: float = 0.95) -> tuple[float, float] | None:
    """Delete-a-group jackknife interval of the debiased CKA; prompt i is in group i modulo ``groups``.

    Variance (G - 1) / G sum (theta_g - mean)^2 (Shao & Tu 1995, section 2.3), Student's t with G - 1 degrees of
    freedom, clipped to [-1, 1]. A bootstrap would repeat prompts, and equal prompts bring the bias back. None if a
    part has fewer than 4 prompts or is undefined.
    """
    whole, n = linear_cka(gram_x, gram_y), gram_x.shape[0]
    groups = min(groups, n)
    if whole is None or groups < 2:
        return None
    index = torch.arange(n)
    parts = []
    for group in range(groups):
        kept = index[index % groups != group]
        part = linear_cka(gram_x[kept][:, kept], gram_y[kept][:, kept])
        if part is None:
            return None
        parts.append(part)
    return _interval(whole, parts, level)


def _interval(whole: float, parts: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    groups = len(parts)
    centre = math.fsum(parts) / groups
    deviation = math.sqrt((groups - 1) / groups * math.fsum((part - centre) ** 2 for part in parts))
    reach = _quantile(0.5 + level / 2, groups - 1) * deviation
    return max(-1.0, whole - reach), min(1.0, whole + reach)


@cache
def _quantile(share: float, freedom: int) -> float:
    return float(stats.t.ppf(share, freedom))


def similarity(gram_x: Tensor, gram_y: Tensor, generator: Generator, groups: int = GROUPS) -> dict[str, float | None]:
    """{cka, low, high, shuffled, biased} of two Grams: the debiased value with its interval and control."""
    low, high = jackknife(gram_x, gram_y, groups) or (None, None)
    return {
        "cka": linear_cka(gram_x, gram_y),
        "low": low,
        "high": high,
        "shuffled": shuffled(gram_x, gram_y, generator),
        "biased": linear_cka(gram_x, gram_y, debiased=False),
    }


def similarities(
    grams: Sequence[Tensor], pairs: Sequence[tuple[int, int]], generator: Generator, groups: int = GROUPS
) -> list[dict[str, float | None]]:
    """What :func:`similarity` gives, bit by bit, for many pairs among ``grams``, each with the same shuffles.

    What concerns one model is done once a model: the centring, with and without each group of prompts, the shuffles.
    One such form of every model is in memory at a time.
    """
    n = len(grams[0])
    groups = min(groups, n)

    missing: list[float | None] = [None] * len(pairs)
    index = torch.arange(n)
    kept = [index[index % groups != group] for group in range(groups)] if groups > 1 else []
    parts = [linear_ckas([gram[some][:, some] for gram in grams], pairs) for some in kept]
    whole, controls = missing, []
    if n >= LEAST_ROWS:
        centred = [_u_centred(gram) for gram in grams]
        whole = _cosines(centred, pairs)
        for _ in range(DRAWS):
            order = torch.randperm(n, generator=generator)
            controls.append(_cosines(centred, pairs, [gram[order][:, order] for gram in centred]))
    biased = _cosines([_centred(gram) for gram in grams], pairs) if n >= 2 else missing
    rows: list[dict[str, float | None]] = []
    for i, value in enumerate(whole):
        own = [part[i] for part in parts]
        known = [part for part in own if part is not None]
        low, high = _interval(value, known) if value is not None and own and len(known) == len(own) else (None, None)
        control = _mean([values[i] for values in controls])
        rows.append({"cka": value, "low": low, "high": high, "shuffled": control, "biased": biased[i]})
    return rows


def linear_ckas(grams: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> list[float | None]:
    """The debiased :func:`linear_cka` of many pairs among ``grams``; equal to it bit by bit."""
    if len(grams[0]) < LEAST_ROWS:
        return [None] * len(pairs)
    return _cosines([_u_centred(gram) for gram in grams], pairs)


def _cosines(
    first: Sequence[Tensor], pairs: Sequence[tuple[int, int]], second: Sequence[Tensor] | None = None
) -> list[float | None]:
    """The cosine of ``first[i]`` and ``second[j]`` for each pair (i, j); ``second`` is ``first`` where it is None."""
    norms = [math.sqrt(_inner(x, x)) for x in first]
    others = norms if second is None else [math.sqrt(_inner(x, x)) for x in second]
    seconds = first if second is None else second
    return [_share(_inner(first[i], seconds[j]), norms[i] * others[j]) for i, j in pairs]


def _u_centred(gram: Tensor) -> Tensor:
    n = gram.shape[0]
    zeroed = gram - torch.diag(gram.diagonal())
    sums = zeroed.sum(0)
    centred = zeroed - (sums[:, None] + sums[None, :]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    centred = centred - torch.diag(centred.diagonal())
    # If only one prompt differs, the rest is float64 rounding.
    return centred if centred.norm() > ROUNDING * gram.norm() else torch.zeros_like(centred)


def _centred(gram: Tensor) -> Tensor:
    rows = gram.mean(0)
    return gram - rows[:, None] - rows[None, :] + rows.mean()


def _inner(gram_x: Tensor, gram_y: Tensor) -> float:
    return float((gram_x * gram_y).sum())


def _cosine(gram_x: Tensor, gram_y: Tensor) -> float | None:
    scale = math.sqrt(_inner(gram_x, gram_x)) * math.sqrt(_inner(gram_y, gram_y))
    return _share(_inner(gram_x, gram_y), scale)


def _share(inner: float, scale: float) -> float | None:
    return None if scale == 0 or not math.isfinite(scale) else max(-1.0, min(1.0, inner / scale))


def _mean(values: Sequence[float | None]) -> float | None:
    held = [value for value in values if value is not None]
    return math.fsum(held) / len(held) if held else None
