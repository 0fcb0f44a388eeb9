"""Intervals and tests against statsmodels and by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from analysis.statistics.significance import (
    holm,
    mcnemar_exact,
    paired_interval,
    sign_flip,
    smallest_difference,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 30), (1159, 1319), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_equals_statsmodels(k: int, n: int, level: float) -> None:
    expected = proportion_confint(k, n, alpha=1 - level, method="wilson")
    assert wilson(k, n, level) == pytest.approx(expected, abs=1e-12)


def test_wilson_edges() -> None:
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == 1
    with pytest.raises(ValueError, match="6 successes in 5"):
        wilson(6, 5)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 6), (5, 5), (12, 3), (40, 61), (90, 10)])
def test_mcnemar_equals_statsmodels(b: int, c: int) -> None:
    expected = mcnemar([[100, b], [c, 100]], exact=True).pvalue
    assert mcnemar_exact(b, c) == pytest.approx(float(expected), rel=1e-9)
    assert mcnemar_exact(c, b) == mcnemar_exact(b, c)


def test_mcnemar_by_hand() -> None:
    """No discordant pair: 1. Six one way: 2 / 64. One against five: 2 (1 + 6) / 64."""
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(6, 0) == pytest.approx(2 / 64)
    assert mcnemar_exact(1, 5) == pytest.approx(14 / 64)
    assert mcnemar_exact(1, 1) == 1
    with pytest.raises(ValueError, match="not negative"):
        mcnemar_exact(-1, 2)


DIFFERENCES = [
    [3, -1, 0, 2], [1, 1, 1, 1, 1, 1], [-4, 4], [2, -1, 3, 0, -2, 1, 1, 4, -3, 2], [0, 0, 0], [5], [-1, 2, -8],
]  # fmt: skip


@pytest.mark.parametrize("differences", DIFFERENCES)
def test_sign_flips_are_counted_as_by_writing_all_down(differences: Sequence[int]) -> None:
    """The share of all choices of signs whose sum lies as far from 0 as the one that was seen."""
    seen = abs(sum(differences))
    sums = [
        sum(sign * abs(d) for sign, d in zip(signs, differences, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    assert sign_flip(differences) == pytest.approx(sum(abs(s) >= seen for s in sums) / len(sums), rel=1e-12)
    assert sign_flip([-d for d in differences]) == sign_flip(differences)


@pytest.mark.parametrize("differences", [d for d in DIFFERENCES if any(d) and len(d) > 1])
def test_sign_flips_equal_scipys_permutation_test(differences: Sequence[int]) -> None:
    def statistic(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.sum(x - y, axis=axis)

    pairs = (np.array(differences), np.zeros(len(differences)))
    expected = permutation_test(pairs, statistic, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert sign_flip(differences) == pytest.approx(float(expected.pvalue), rel=1e-12)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (6, 0), (12, 3), (40, 61), (700, 650)])
def test_with_one_sample_sign_flips_are_mcnemars_test(b: int, c: int) -> None:
    assert sign_flip([-1] * b + [0] * 9 + [1] * c) == pytest.approx(mcnemar_exact(b, c), rel=1e-9)


def test_sign_flips_of_thousands_of_problems() -> None:
    """Against the normal limit: the sum's variance under random signs is the sum of the squares."""
    differences = [(7 * i) % 9 - 4 for i in range(9000)] + [1] * 300
    z = (sum(differences) - 1) / math.sqrt(sum(d * d for d in differences))  # continuity: sums are two apart
    assert sign_flip(differences) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)


@pytest.mark.parametrize(("first", "second"), [(0.1, 0.1), (0.05, 0.25), (0.02, 0.02)])
def test_the_paired_interval_covers_the_difference(first: float, second: float) -> None:
    """The chance of every outcome of 40 problems, summed over those whose interval holds the true difference."""
    n, covered = 40, 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            low, high = paired_interval(b, c, n)
            chance = math.comb(n, b) * math.comb(n - b, c) * first**b * second**c
            covered += chance * (1 - first - second) ** (n - b - c) * (low <= second - first <= high)
    assert 0.94 <= covered <= 1


def test_paired_interval_by_hand() -> None:
    """One problem more each way: of 21 with 7 and 1 discordant, p = 8/23 and 2/23, their difference -6/23."""
    spread = math.sqrt((8 / 23 + 2 / 23 - (6 / 23) ** 2) / 23)
    assert paired_interval(7, 1, 21) == pytest.approx((-6 / 23 - 1.959964 * spread, -6 / 23 + 1.959964 * spread))
    low, high = paired_interval(0, 0, 50)
    assert low == -high and 0 < high < 0.06
    assert paired_interval(0, 0, 0) == (-1, 1)
    with pytest.raises(ValueError, match="discordant problems of 3"):
        paired_interval(2, 2, 3)


def test_holm() -> None:
    """By hand: .01 x 3, then max(.03, .02 x 2), then max(.04, .5); and statsmodels with ties."""
    assert holm([0.5, 0.01, 0.02]) == pytest.approx([0.5, 0.03, 0.04])
    values = [0.2, 0.001, 0.04, 0.04, 0.9, 0.013]
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])
    assert holm([]) == []


def test_smallest_difference() -> None:
    """At .05 six problems one way are needed (2 / 64 < .05 < 2 / 32). With 15 comparisons the bound is .0033
    and 2 / 2^10 < .0033 < 2 / 2^9: ten."""
    assert smallest_difference(30) == 6 / 30
    assert smallest_difference(1319, comparisons=15) == 10 / 1319
    assert smallest_difference(5) is None
