"""Intervals and exact tests for accuracies on one fixed set of problems, of one model and of two."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    found = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p that two models solve equally many: b problems one alone solves, c the other alone.

    The binomial test of min(b, c) in b + c at 1/2 (McNemar 1947, exact form); 1 where no pair disagrees.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts of discordant problems are not negative, got {b} and {c}")
    return float(stats.binomtest(min(b, c), b + c).pvalue) if b + c else 1.0


def sign_flip(differences: Sequence[int]) -> float:
    """Two-sided exact p that two models are right equally often, from several samples a problem.

    ``differences``: one whole number a problem, the right samples of the one model less those of the other. Under the
    null hypothesis the two could change places on any problem, so each difference is as likely to have the other
    sign: p is the share of all 2^n choices of signs whose sum lies at least as far from 0 (Fisher 1935, section 21;
    Pitman 1937). Samples of one problem are never taken as independent. The choices are counted, not drawn, by the
    shift algorithm (Streitberg and Röhmel 1986): O(n x sum). With one sample a problem it is McNemar's exact test.
    """
    steps = [abs(d) for d in differences if d]
    positive = sum(d for d in differences if d > 0)
    tail = min(positive, sum(steps) - positive)  # of the sum of what comes out positive; the other tail mirrors it
    chance = np.zeros(tail + 1)
    chance[0] = 1.0
    for step in steps:
        chance /= 2
        if step <= tail:
            chance[step:] += chance[: tail + 1 - step].copy()
    return min(1.0, 2 * float(chance.sum()))


def paired_interval(b: int, c: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of (c - b) / n: how far the second model's accuracy lies above the first's on n paired problems.

    b problems the first alone solves, c the second alone. Bonett and Price's adjusted Wald interval (2012), as if
    one problem more had gone each way: it keeps a width where no problem is discordant. (-1, 1) for n = 0.
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
    """Holm's step-down adjusted p-values (Holm 1979), in the order given."""
    m = len(p_values)
    adjusted, running = [0.0] * m, 0.0
    for step, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - step) * p_values[index]))
        adjusted[index] = running
    return adjusted


def smallest_difference(n: int, alpha: float = 0.05, comparisons: int = 1) -> float | None:
    """The smallest difference in accuracy on n paired problems that McNemar's exact test could show.

    Definition: the least |b - c| / n with p <= alpha / comparisons (Bonferroni, the first step of Holm), in the best
    case, where all discordant problems go one way. It says what n could show at all, not what a study would likely
    find (no power is assumed). None where no outcome reaches it, as with fewer than 6 problems at 0.05.
    """
    alone = next((b for b in range(1, n + 1) if mcnemar_exact(b, 0) <= alpha / comparisons), None)
    return None if alone is None else alone / n
