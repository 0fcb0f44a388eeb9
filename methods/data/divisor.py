"""What the sum of an optimiser step's losses is divided by, whoever computes which unit. Pure."""

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
    """The count of the step's units (completion tokens, rows, pairs), or the sum of their weights' sizes.

    ``means`` holds each rollout's group mean. The second is for signed weights with ``divide_by`` "weights", which
    keeps a step whose weights are small as long as others. A step whose weights are all zero is divided by the count.
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
