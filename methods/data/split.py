"""Splits an optimiser step's units among workers, and a worker's units into forward passes."""

from __future__ import annotations

from collections.abc import Sequence

from methods.data.batch import Rollout
from methods.data.view import Unit


def share(units: Sequence[Unit], rank: int, workers: int) -> list[Unit]:
    """The units of worker ``rank`` (from 0): every ``workers``-th, so that workers differ by one unit at most."""
    return list(units[rank::workers])


def micro_batches(units: Sequence[Unit], rollouts: Sequence[Rollout], limit: int, tokens: bool) -> list[Sequence[Unit]]:
    """The units in order, split into forward passes of at most ``limit`` units.

    With ``tokens``, ``limit`` is a budget of padded tokens: rows times the longest prompt plus completion among them.
    A unit that exceeds the budget has a pass of its own.
    """
    if not tokens:
        return [units[first : first + limit] for first in range(0, len(units), limit)]
    passes: list[Sequence[Unit]] = []
    part: list[Unit] = []
    longest = 0
    for unit in units:
        length = max(longest, unit_length(unit, rollouts))
        if part and length * len(unit) * (len(part) + 1) > limit:
            passes.append(part)
            part, length = [], unit_length(unit, rollouts)
        part.append(unit)
        longest = length
    return [*passes, part]


def unit_length(unit: Unit, rollouts: Sequence[Rollout]) -> int:
    """Tokens of the unit's longest row."""
    return max(len(rollouts[row].prompt_ids) + len(rollouts[row].completion_ids) for row in unit)


def divisible(units: Sequence[Unit], rollouts: Sequence[Rollout], limit: int, tokens: bool) -> bool:
    """Whether halving the limit would make any forward pass of these units smaller."""
    return limit > (min(unit_length(unit, rollouts) * len(unit) for unit in units) if tokens else 1)
