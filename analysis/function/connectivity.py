"""Linear mode connectivity: the loss on a straight line between two fine-tuned models.

Source: Frankle 2020 (1912.05671), section 2 (the barrier as the excess over the line between the ends' losses). The
loss is the nll per token of whole held-out completions. An interpolation of two deltas is exactly a delta of rank
r + r'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from models.adapter import Factors


def between(a: Mapping[str, Factors], b: Mapping[str, Factors], weight: float) -> dict[str, Factors]:
    """``weight * a + (1 - weight) * b`` per module; at weight 1 ``a`` and at 0 ``b`` are returned unchanged.

    A module missing on one side has a zero delta there; an empty mapping is the base.
    """
    if weight in (0, 1):
        return dict(a if weight == 1 else b)
    joined = {}
    for name in sorted(set(a) | set(b)):
        if name in a and name in b:
            joined[name] = interpolate(a[name], b[name], weight)
        else:
            only, share = (a[name], weight) if name in a else (b[name], 1 - weight)
            joined[name] = Factors(share * only.b, only.a)
    return joined


def interpolate(f: Factors, g: Factors, weight: float) -> Factors:
    """``weight * dW_f + (1 - weight) * dW_g``, exactly, as factors of rank r_f + r_g."""
    return Factors(torch.cat([weight * f.b, (1 - weight) * g.b], dim=1), torch.cat([f.a, g.a], dim=0))


def token_mean(scores: Sequence[tuple[float, int]]) -> float:
    """(sum, tokens) per row -> mean over tokens; ValueError if there is no token."""
    tokens = sum(count for _, count in scores)
    if tokens == 0:
        raise ValueError("no completion token to take a loss over: every held-out completion is empty")
    return math.fsum(total for total, _ in scores) / tokens


def barrier(weights: Sequence[float], losses: Sequence[float]) -> float | None:
    """The largest excess of the loss over the straight line between the losses at weights 0 and 1; never below 0.

    None if a loss is not finite. ValueError if an end is missing or the lengths differ.
    """
    if len(weights) != len(losses) or 0 not in weights or 1 not in weights:
        raise ValueError(f"a barrier needs a loss at each weight, 0 and 1 among them; got {len(losses)} at {weights}")
    if not all(math.isfinite(loss) for loss in losses):
        return None
    at = dict(zip(weights, losses, strict=True))
    return max(loss - (weight * at[1] + (1 - weight) * at[0]) for weight, loss in at.items())
