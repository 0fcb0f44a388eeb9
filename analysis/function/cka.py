"""Debiased linear CKA of two models' activations on the same prompts, with a shuffled control and an interval.

Letters: n prompts, p features. Sources: Kornblith 2019 (1905.00414), section 3 (biased); Song 2012 (JMLR 13),
section 3 (unbiased HSIC), used for CKA by Nguyen 2021 (2010.15327), equation 3. In U-centred form (Szekely
2014) unbiased HSIC is an inner product, so the debiased CKA too lies within [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    centre = math.fsum(parts) / groups
    deviation = math.sqrt((groups - 1) / groups * math.fsum((part - centre) ** 2 for part in parts))
    reach = float(stats.t.ppf(0.5 + level / 2, groups - 1)) * deviation
    return max(-1.0, whole - reach), min(1.0, whole + reach)


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
    if scale == 0 or not math.isfinite(scale):
        return None
    return max(-1.0, min(1.0, _inner(gram_x, gram_y) / scale))


def _mean(values: Sequence[float | None]) -> float | None:
    held = [value for value in values if value is not None]
    return math.fsum(held) / len(held) if held else None
