"""Intervals and exact tests for the accuracies of one or two models on a fixed set of problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import stats


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of k successes in n (Wilson 1927; Brown 2001, section 3.1.1).

    (0, 1) for n = 0.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials: need 0 <= k <= n")
    if n == 0:
        return 0.0, 1.0
    interval = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


@cache
def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p-value that two models have equal accuracy: b problems only one solves, c only the other.

    The binomial test of min(b, c) in b + c at 1/2 (McNemar 1947, exact form); 1 if b = c = 0.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts of discordant problems are not negative, got {b} and {c}")
    return float(stats.binomtest(min(b, c), b + c).pvalue) if b + c else 1.0


def sign_flip(differences: Sequence[int]) -> float:
    """Two-sided exact p-value that two models have equal accuracy, from several samples per problem.

    ``differences``: per problem, the right samples of one model minus those of the other. Under the null hypothesis
    the models are exchangeable on each problem, so each difference has either sign with equal probability: p is the
    fraction of all 2^n sign choices whose sum is at least as far from 0 (Fisher 1935, section 21; Pitman 1937).
    Samples of one problem are not treated as independent. The choices are counted, not sampled, by the shift algorithm
    (Streitberg and Röhmel 1986): O(n x sum). With one sample per problem it is McNemar's exact test.
    """
    steps = [abs(d) for d in differences if d]
    positive = sum(d for d in differences if d > 0)
    tail = min(positive, sum(steps) - positive)  # of the sum of positive differences; the other tail is symmetric
    chance = np.zeros(tail + 1)
    chance[0] = 1.0
    for step in steps:
        chance /= 2
        if step <= tail:
            chance[step:] += chance[: tail + 1 - step].copy()
    return min(1.0, 2 * float(chance.sum()))


def paired_interval(b: int, c: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of (c - b) / n, the second model's accuracy minus the first's on n paired problems.

    b problems only the first solves, c only the second. Bonett and Price's adjusted Wald interval (2012), which adds
    one discordant problem each way, so that its width is never 0. (-1, 1) for n = 0.
    """
    if b < 0 or c < 0 or b + c > n:
        raise ValueError(f"{b} and {c} discordant problems of {n}")
    if n == 0:
        return -1.0, 1.0
    first, second = (b + 1) / (n + 2), (c + 1) / (n + 2)
    centre = second - first
    reach = float(stats.norm.ppf(0.5 + level / 2)) * math.sqrt((first + second - centre**2) / (n + 2))
    return max(-1.0, centre - reach), min(1.0, centre + reach)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the given order."""
    m = len(p_values)
    adjusted, running = [0.0] * m, 0.0
    for step, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - step) * p_values[index]))
        adjusted[index] = running
    return adjusted


def smallest_difference(n: int, alpha: float = 0.05, comparisons: int = 1) -> float | None:
    """The smallest difference in accuracy on n paired problems that McNemar's exact test can find significant.

    The least |b - c| / n with p <= alpha / comparisons (Bonferroni, the first step of Holm) if all discordant problems
    go one way. It is a lower limit and assumes no power. None if no outcome is significant, as with fewer than 6
    problems at 0.05.
    """
    alone = next((b for b in range(1, n + 1) if mcnemar_exact(b, 0) <= alpha / comparisons), None)
    return None if alone is None else alone / n
