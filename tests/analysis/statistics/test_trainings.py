"""Differences between methods: components against an analysis of variance and closed forms, coverage by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.statistics.trainings import method_difference, scalar_difference
from tests.analysis.statistics.planted_verdicts import Planted


def some_shares(seed: int, trainings: int, problems: int) -> np.ndarray:
    """Shares of four samples, with effects of training and problem."""
    rng = np.random.default_rng(seed)
    chance = 0.5 + 0.2 * rng.standard_normal((trainings, 1)) + 0.2 * np.random.default_rng(9).standard_normal(problems)
    return rng.binomial(4, chance.clip(0.02, 0.98)) / 4


def test_components_equal_statsmodels_mean_squares() -> None:
    """Type I mean squares of method, problem, method x problem, training within method; the rest is the residual."""
    trainings, problems = 4, 9
    shares = [some_shares(seed, trainings, problems) for seed in (3, 4)]
    found = method_difference(*shares)
    rows = [
        {"m": m, "t": t, "p": p, "share": shares[m][t, p]}
        for m in (0, 1) for t in range(trainings) for p in range(problems)
    ]  # fmt: skip
    table = anova_lm(ols("share ~ C(m) + C(p) + C(m):C(p) + C(m):C(t)", pd.DataFrame(rows)).fit())
    squares = table["sum_sq"] / table["df"]
    residual = squares["Residual"]
    assert not found.truncated
    assert found.residual == pytest.approx(residual, rel=1e-9)
    assert found.between == pytest.approx((squares["C(m):C(t)"] - residual) / problems, rel=1e-9)
    assert found.between == pytest.approx((found.between_a + found.between_b) / 2)
    assert found.interaction == pytest.approx((squares["C(m):C(p)"] - residual) / trainings, rel=1e-9)
    # Of a balanced study the variance of the difference is 2 (MS_mp + MS_t - MS_residual) / (T P).
    expected = 2 * (squares["C(m):C(p)"] + squares["C(m):C(t)"] - residual) / (trainings * problems)
    assert found.standard_error == pytest.approx(math.sqrt(expected), rel=1e-9)
    assert found.problem_error == pytest.approx(math.sqrt(2 * squares["C(m):C(p)"] / (trainings * problems)), rel=1e-9)


def test_by_hand() -> None:
    """Two trainings at two problems. Rows are parallel, so there is no residual.

    Trainings' means are 1/4, 1/2 and 3/8, 7/8: between is 1/32 and 1/8. The gaps at the problems are 1/2 and 0,
    with variance 1/8. se^2 = 1/64 + 4/64 + (1/8) / 2 = 9/64. Welch's f for 1/64 and 4/64 is 25 / 17, and the problems
    have one degree of freedom: f = 9 / (5 * 17 / 25 + 4 / 1) = 45 / 37.
    """
    a = np.array([[0.0, 0.5], [0.25, 0.75]])
    b = np.array([[0.375, 0.375], [0.875, 0.875]])
    found = method_difference(a, b)
    assert found.difference == pytest.approx(0.25)
    assert (found.between_a, found.between_b) == pytest.approx((1 / 32, 1 / 8))
    assert (found.between, found.interaction, found.residual) == pytest.approx((5 / 64, 1 / 16, 0), abs=1e-15)
    assert found.standard_error == pytest.approx(3 / 8)
    assert found.problem_error == pytest.approx(1 / 4)
    assert found.degrees_of_freedom == pytest.approx(45 / 37)
    assert found.p == pytest.approx(2 * stats.t.sf((1 / 4) / (3 / 8), 45 / 37))
    reach = 3 / 8 * stats.t.ppf(0.975, 45 / 37)
    assert found.interval == pytest.approx((0.25 - reach, 0.25 + reach))


@pytest.mark.parametrize("planted", [
    Planted(centre=(0.0, 0.3), training=(0.5, 0.3), interaction=0.5), Planted(centre=(-2.0, -1.5), training=(0.4, 0.8)),
])  # fmt: skip
def test_components_of_verdicts_are_unbiased(planted: Planted) -> None:
    """The covariances of thresholded normal sums, from the bivariate normal distribution."""
    found = [method_difference(a, b) for a, b in zip(*planted.draw(1, 60, (12, 12), 300), strict=True)]
    for method, name in enumerate(("between_a", "between_b")):
        assert np.mean([getattr(f, name) for f in found]) == pytest.approx(planted.between(method), rel=0.1)
    assert np.mean([f.interaction for f in found]) == pytest.approx(planted.interaction_of_verdicts(), rel=0.1)
    residual = (planted.residual(0) + planted.residual(1)) / 2
    assert np.mean([f.residual for f in found]) == pytest.approx(residual, rel=0.02)
    assert np.mean([f.difference for f in found]) == pytest.approx(planted.difference(), abs=0.025)


@pytest.mark.parametrize("trainings", [2, 3, 5])
@pytest.mark.parametrize(("centre", "training", "interaction"), [
    (0.0, (0.0, 0.0), 0.0), (0.0, (0.5, 0.5), 1.0), (0.0, (0.6, 0.3), 0.5), (-2.0, (0.3, 0.3), 0.5),
    (-2.0, (0.6, 0.3), 1.0), (1.5, (0.2, 0.2), 0.0),
])  # fmt: skip
def test_coverage_and_type_one_error(
    trainings: int, centre: float, training: tuple[float, float], interaction: float
) -> None:
    planted = Planted(centre=(centre, centre), training=training, interaction=interaction)
    # Trainings that vary more move an average of verdicts: shift the second method until the means are equal.
    planted = replace(planted, centre=(centre, centre * planted.scale(1) / planted.scale(0)))
    assert planted.difference() == pytest.approx(0, abs=1e-12)
    found = [method_difference(a, b) for a, b in zip(*planted.draw(7, 400, (trainings,) * 2, 80), strict=True)]
    assert np.mean([f.p is not None and f.p <= 0.05 for f in found]) <= 0.07
    moved = replace(planted, centre=(planted.centre[0], planted.centre[1] + 0.5))
    found = [method_difference(a, b) for a, b in zip(*moved.draw(8, 400, (trainings,) * 2, 80), strict=True)]
    covered = [f.interval is not None and f.interval[0] <= moved.difference() <= f.interval[1] for f in found]
    assert np.mean(covered) >= 0.93


def test_is_welchs_test_of_the_means_if_problems_do_not_vary() -> None:
    a, b = np.array([0.25, 0.5, 0.375]), np.array([0.5, 0.75, 0.875, 0.625])
    expected = stats.ttest_ind(b, a, equal_var=False)
    interval = expected.confidence_interval(0.9)
    found = method_difference(np.repeat(a[:, None], 50, 1), np.repeat(b[:, None], 50, 1), level=0.9)
    for difference in (found, scalar_difference(a, b, level=0.9)):
        assert difference.p == pytest.approx(expected.pvalue)
        assert difference.degrees_of_freedom == pytest.approx(expected.df)
        assert difference.interval == pytest.approx((interval.low, interval.high))
        assert difference.difference == pytest.approx(b.mean() - a.mean())


def test_is_the_paired_test_of_the_problems_if_trainings_do_not_vary() -> None:
    a, b = some_shares(5, 1, 40), some_shares(6, 1, 40)
    expected = stats.ttest_rel(b[0], a[0])
    found = method_difference(np.repeat(a, 3, 0), np.repeat(b, 2, 0))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == pytest.approx(39)
    assert found.between == 0 and found.residual == pytest.approx(0, abs=1e-12)


def test_approaches_the_paired_test_of_the_problems_with_many_trainings() -> None:
    planted = Planted(centre=(0.0, 0.3), training=(0.3, 0.3), interaction=0.7)
    a, b = (verdicts[0] for verdicts in planted.draw(2, 1, (3000, 3000), 40))
    expected = stats.ttest_rel(b.mean(0), a.mean(0))
    found = method_difference(a, b)
    assert found.p == pytest.approx(expected.pvalue, rel=0.02)
    assert found.degrees_of_freedom == pytest.approx(39, rel=0.02)


def test_one_training_of_each_has_no_interval() -> None:
    a, b = some_shares(1, 1, 12), some_shares(2, 1, 12)
    found = method_difference(a, b)
    assert found.difference == pytest.approx((b - a).mean())
    assert found.problem_error == pytest.approx(stats.sem((b - a)[0]))
    unknown = (found.between, found.between_a, found.between_b, found.interaction, found.residual)
    assert unknown == (None,) * 5
    assert found.standard_error is None and found.interval is None and found.p is None and not found.pooled


def test_one_training_of_one_method_borrows_the_others_spread() -> None:
    """Trainings that vary, problems that do not: the t of one new value against T (Sokal and Rohlf, section 9.6)."""
    b = np.array([0.25, 0.5, 0.375, 0.75])
    found = method_difference(np.full((1, 6), 0.9), np.repeat(b[:, None], 6, 1))
    t = (b.mean() - 0.9) / (b.std(ddof=1) * math.sqrt(1 + 1 / 4))
    assert found.pooled and found.between_a is None and found.between == found.between_b
    assert found.degrees_of_freedom == pytest.approx(3)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 3))
    mirrored = method_difference(np.repeat(b[:, None], 6, 1), np.full((1, 6), 0.9))
    assert mirrored.pooled and mirrored.between_b is None
    assert (mirrored.difference, mirrored.p) == pytest.approx((-found.difference, found.p))


def test_negative_components_are_zero_and_named() -> None:
    """Two trainings of each that are right at opposite problems: equal means, so that all is residual."""
    a = np.array([[1.0, 0, 1, 0], [0, 1, 0, 1]])
    found = method_difference(a, a[::-1])
    assert set(found.truncated) == {"between_a", "between_b", "between", "interaction"}
    assert found.between == found.between_a == found.between_b == found.interaction == 0
    # Of a method the residual sum of squares is 8 quarters with 3 degrees of freedom.
    assert found.residual == pytest.approx(2 / 3)
    assert found.standard_error == found.problem_error == pytest.approx(math.sqrt((1 / 3 + 1 / 3) / 4))
    assert found.p == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_nothing_varies(share: float) -> None:
    found = method_difference(np.full((3, 7), share), np.full((2, 7), 0.1))
    assert found.difference == pytest.approx(0.1 - share)
    assert found.interval is None and found.p is None and found.degrees_of_freedom is None
    scalar = scalar_difference([share, share, share], [0.1, 0.1])
    assert scalar.interval is None and scalar.p is None and scalar.standard_error == pytest.approx(0, abs=1e-12)


def test_order_of_rows_and_columns_does_not_matter_and_methods_mirror() -> None:
    rng = np.random.default_rng(0)
    a, b = some_shares(1, 3, 20), some_shares(2, 4, 20)
    found, mirrored = method_difference(a, b), method_difference(b, a)
    columns = rng.permutation(20)
    shuffled = method_difference(a[rng.permutation(3)][:, columns], b[rng.permutation(4)][:, columns])
    assert shuffled.p == pytest.approx(found.p) and shuffled.interval == pytest.approx(found.interval)
    assert mirrored.p == pytest.approx(found.p)
    assert mirrored.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    assert (mirrored.between_a, mirrored.between_b) == pytest.approx((found.between_b, found.between_a))


def test_scalars_of_one_training_have_no_interval() -> None:
    found = scalar_difference([0.5], [0.25, 0.75])
    assert found.difference == 0 and found.trainings == (1, 2)
    assert (found.standard_error, found.degrees_of_freedom, found.interval, found.p) == (None,) * 4


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 5), (2, 4)), ((0, 5), (2, 5)), ((2, 1), (2, 1)), ((5,), (2, 5))],
)
def test_other_shapes_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the same two or more problems"):
        method_difference(np.zeros(a), np.zeros(b))


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        method_difference(np.zeros((2, 3)), np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="not finite"):
        scalar_difference([1, math.inf], [1, 2])
    with pytest.raises(ValueError, match="one value of each training"):
        scalar_difference([], [1, 2])
