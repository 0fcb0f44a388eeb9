"""Intervals and tests against statsmodels and by hand."""

from __future__ import annotations

import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from analysis.significance import holm, mcnemar_exact, smallest_difference, wilson


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


@pytest.mark.parametrize(("b", "c"), [(1, 0), (0, 6), (5, 5), (12, 3), (40, 61), (90, 10)])
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


def test_holm() -> None:
    """By hand: .01 x 3, then max(.03, .02 x 2), then max(.04, .5); and statsmodels with ties."""
    assert holm([0.5, 0.01, 0.02]) == pytest.approx([0.5, 0.03, 0.04])
    values = [0.2, 0.001, 0.04, 0.04, 0.9, 0.013]
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])
    assert holm([]) == []


def test_smallest_difference() -> None:
    """At .05 six problems one way are needed (2 / 64 < .05 < 2 / 32). With 15 comparisons the bound is .0033
    and 2 / 2^10 < .0033 < 2 / 2^9: ten. Of 20 discordant, 15 to 5 is the evenest below .05 (p = .041)."""
    assert smallest_difference(30) == 6 / 30
    assert smallest_difference(1319, comparisons=15) == 10 / 1319
    assert smallest_difference(5) is None
    assert smallest_difference(100, discordant=20) == 10 / 100
    assert smallest_difference(100, discordant=5) is None
    assert smallest_difference(100, discordant=0) is None
    with pytest.raises(ValueError, match="discordant problems of 10"):
        smallest_difference(10, discordant=11)
