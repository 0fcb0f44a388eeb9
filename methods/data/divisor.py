"""The denominator of an optimiser step's loss, counted over the whole step on every worker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from methods.data.batch import Rollout
from methods.data.view import Unit
from methods.objectives.method import Method


def divisor(
    method: Method,
    settings: Mapping[str, Any],
    units: Sequence[Unit],
    rollouts: Sequence[Rollout],
    means: Sequence[float],
) -> float:
    """The count of the step's units (completion tokens, rows, pairs), or the sum of their absolute weights.

    The latter with ``divide_by`` "weights", so that the size of an update does not depend on the size of the weights;
    if all weights are zero, the count. ``means`` holds each rollout's group mean.
    """
    unit = method.unit_of(settings)
    if unit == "pair":
        return len(units)
    rows = [row for own in units for row in own]
    sizes = [len(rollouts[row].completion_ids) if unit == "token" else 1 for row in rows]
    if settings.get("divide_by") != "weights":
        return sum(sizes)
    assert method.weights is not None, "a method that may divide by its weights declares them"
    weights = [abs(method.weights(rollouts[row].reward, means[row], **settings)) for row in rows]
    return math.fsum(w * size for w, size in zip(weights, sizes, strict=True)) or sum(sizes)
