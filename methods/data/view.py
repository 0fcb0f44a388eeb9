"""The rollouts that a method trains on and their order: one global order of rows, filtered per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from methods import METHODS
from methods.data.batch import Rollout
from methods.seeds import derive

Unit = tuple[int, ...]
"""Row numbers of one unit of training: ``(row,)``, or ``(chosen, rejected)`` for a pair."""

PairRule = Literal["one", "all", "best_worst", "same_teacher"]
PAIR_RULES = get_args(PairRule)
Examples = Literal["all", "paired"]
LACKS = {
    "one": "no problem has both a right and a wrong rollout",
    "all": "no problem has both a right and a wrong rollout",
    "best_worst": "no problem has rollouts of unlike reward",
    "same_teacher": "no teacher has both a right and a wrong rollout of one problem",
}


def group_means(rollouts: Sequence[Rollout]) -> list[float]:
    """Each rollout's group mean reward: its own ``group_mean`` if set, else the mean over the given rollouts."""
    totals: dict[int, list[float]] = {}
    for rollout in rollouts:
        totals.setdefault(rollout.group, []).append(rollout.reward)
    means = {group: sum(rewards) / len(rewards) for group, rewards in totals.items()}
    return [means[r.group] if r.group_mean is None else r.group_mean for r in rollouts]


def view(
    method: str,
    rollouts: Sequence[Rollout],
    pair_rule: str = "one",
    pairs: int | None = None,
    settings: Mapping[str, Any] | None = None,
    examples: Examples = "all",
) -> list[Unit]:
    """The units of ``method`` under ``settings`` (the defaults where None) in row order.

    ``pair_rule`` "one": for each problem with a right and a wrong rollout, the first right one (chosen) with the first
    wrong one (rejected). "all": every right with every wrong one of a problem. "same_teacher": as "one", within each
    teacher's rollouts of a problem. "best_worst": a problem's rollout of highest reward with that of lowest (the first
    of equals), if the rewards differ; takes any real rewards.
    A pair of identical token sequences is left out: its gradient is rounding (:func:`equal_pairs` counts them).
    ``pairs`` keeps a fixed draw of at most that many pairs, the same for every seed of a study. With the setting
    ``duplicates`` "drop" only the first of a problem's equal completions is kept. With ``examples`` "paired" a method
    of single rows sees those of these pairs alone, each once; one that is ``blind`` to rewards the chosen ones alone.
    ``ValueError`` if no unit remains, if a reward is neither 0 nor 1 and the method needs that, or if a prompt or
    completion is empty.
    """
    settings = METHODS[method].check(method, settings or {})
    kind = METHODS[method].view
    if pair_rule not in PAIR_RULES:
        raise ValueError(f"unknown pair rule {pair_rule!r}; known rules: {', '.join(PAIR_RULES)}")
    takes_real = METHODS[method].takes_real(settings) or (kind == "pairs" and pair_rule == "best_worst")
    for row, rollout in enumerate(rollouts):
        if rollout.reward not in (0, 1) and not takes_real:
            raise ValueError(f"row {row}: reward {rollout.reward!r} is neither 0 nor 1, which {method} needs")
        if not len(rollout.prompt_ids) or not len(rollout.completion_ids):
            raise ValueError(f"row {row}: prompt and completion need at least one token each")
    if kind == "pairs":
        units, lack = _drawn_pairs(rollouts, pair_rule, pairs)
    else:
        units, lack = [(row,) for row in range(len(rollouts))], "there are no rollouts"
        if examples == "paired":
            drawn, lack = _drawn_pairs(rollouts, pair_rule, pairs)
            sides = 1 if METHODS[method].blind else 2
            units = [(row,) for row in sorted({row for pair in drawn for row in pair[:sides]})]
        if kind == "right":
            lack = "no rollout has reward 1" if units else lack
            units = [unit for unit in units if rollouts[unit[0]].reward == 1]
        if settings.get("duplicates") == "drop":
            units = _first_of_equals(units, rollouts)
    if not units:
        raise ValueError(f"{method}: {lack}")
    return units


def _drawn_pairs(rollouts: Sequence[Rollout], pair_rule: str, pairs: int | None) -> tuple[list[Unit], str]:
    """The pairs by ``pair_rule`` that are not equal in tokens, at most ``pairs`` of them; and why there is none."""
    candidates, lack = _pairs(rollouts, pair_rule), LACKS[pair_rule]
    units = [pair for pair in candidates if not _equal(rollouts, pair)]
    if candidates and not units:
        lack = f"in all {len(candidates)} pairs right and wrong are the same tokens: raise prompt.max_answer_tokens"
    if pairs is not None and len(units) > pairs:
        drawn = np.random.default_rng(derive("pairs", 0)).choice(len(units), pairs, replace=False)
        units = [units[i] for i in sorted(drawn.tolist())]
    return units, lack


def equal_pairs(method: str, rollouts: Sequence[Rollout], pair_rule: str) -> int:
    """Number of pairs that the method's view leaves out because both sides are the same tokens."""
    if METHODS[method].view != "pairs":
        return 0
    return sum(_equal(rollouts, pair) for pair in _pairs(rollouts, pair_rule))


def _equal(rollouts: Sequence[Rollout], pair: Unit) -> bool:
    one, two = ((list(rollouts[row].prompt_ids), list(rollouts[row].completion_ids)) for row in pair)
    return one == two


def _first_of_equals(units: Sequence[Unit], rollouts: Sequence[Rollout]) -> list[Unit]:
    """The units without later duplicates of a completion of the same problem, compared by token."""
    seen: dict[tuple[int, tuple[int, ...]], Unit] = {}
    for unit in units:
        rollout = rollouts[unit[0]]
        seen.setdefault((rollout.group, tuple(rollout.completion_ids)), unit)
    return list(seen.values())


def _pairs(rollouts: Sequence[Rollout], pair_rule: str) -> list[Unit]:
    if pair_rule == "best_worst":
        return _best_worst(rollouts)
    right: dict[tuple[int, str], list[int]] = {}
    wrong: dict[tuple[int, str], list[int]] = {}
    for row, rollout in enumerate(rollouts):
        within = (rollout.group, rollout.teacher if pair_rule == "same_teacher" else "")
        (right if rollout.reward == 1 else wrong).setdefault(within, []).append(row)
    pairs: list[Unit] = []
    for within, chosen in right.items():
        rejected = wrong.get(within, [])
        if pair_rule != "all":
            chosen, rejected = chosen[:1], rejected[:1]
        pairs += [(c, r) for c in chosen for r in rejected]
    return pairs


def _best_worst(rollouts: Sequence[Rollout]) -> list[Unit]:
    """A pair for each problem whose rewards differ; ``max`` and ``min`` take the first of equals."""
    groups: dict[int, list[int]] = {}
    for row, rollout in enumerate(rollouts):
        groups.setdefault(rollout.group, []).append(row)
    pairs = [
        (max(rows, key=lambda row: rollouts[row].reward), min(rows, key=lambda row: rollouts[row].reward))
        for rows in groups.values()
    ]
    return sorted((best, worst) for best, worst in pairs if rollouts[best].reward > rollouts[worst].reward)


def permutation(rows: int, epoch: int, seed: int) -> list[int]:
    """The global order of all rows in one pass (``epoch`` from 0): the same for every method of a study."""
    return np.random.default_rng(derive("order", seed, epoch)).permutation(rows).tolist()


def order(rows: int, units: Sequence[Unit], needed: int, seed: int) -> list[Unit]:
    """The first ``needed`` units of training: epoch after epoch, each in that epoch's :func:`permutation` of rows.

    A unit is placed by its first row, so rows that two methods share keep their relative order in both. An epoch that
    ends within an optimiser step is followed by the next one: no unit is dropped.
    """
    assert units, "a view is never empty"
    by_row: dict[int, list[Unit]] = {}
    for unit in units:
        by_row.setdefault(unit[0], []).append(unit)
    stream: list[Unit] = []
    epoch = 0
    while len(stream) < needed:
        for row in permutation(rows, epoch, seed):
            stream += by_row.get(row, ())
        epoch += 1
    return stream[:needed]
