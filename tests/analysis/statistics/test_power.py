"""Planned numbers of trainings and problems against statsmodels, the noncentral t, and simulated studies."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from analysis.statistics.power import (
    MOST,
    Needed,
    detectable,
    detectable_scalar,
    power_at,
    power_at_scalar,
    trainings_needed,
    trainings_needed_scalar,
)
from analysis.statistics.trainings import method_difference, scalar_difference
from tests.analysis.statistics.planted_verdicts import Planted

PAGE = Path(__file__).resolve().parents[3] / "docs" / "measurements" / "trainings.md"

# As of a benchmark of 200 problems: trainings differ by 2 points, and at a fifth of the problems from one another.
SEEN = {"between": 0.0004, "interaction": 0.01, "residual": 0.1, "problems": 200}


@pytest.mark.parametrize("trainings", [2, 3, 5])
@pytest.mark.parametrize(
    ("difference", "between", "interaction", "residual", "problems"),
    [(0.3, 0.01, 0.02, 0.1, 60), (0.12, 0.0004, 0.01, 0.1, 100), (0.1, 0.0, 0.05, 0.05, 150)],
)
def test_power_is_the_share_of_normal_studies_that_tell(
    trainings: int, difference: float, between: float, interaction: float, residual: float, problems: int
) -> None:
    rng = np.random.default_rng(trainings)
    told = []
    for _ in range(400):
        a, b = (
            math.sqrt(between) * rng.standard_normal((trainings, 1))
            + math.sqrt(interaction) * rng.standard_normal(problems)
            + math.sqrt(residual) * rng.standard_normal((trainings, problems))
            for _ in range(2)
        )
        told.append(method_difference(a, b + difference).p <= 0.05)
    expected = power_at(trainings, difference, between, interaction, residual, problems)
    assert np.mean(told) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("trainings", [2, 3, 5])
@pytest.mark.parametrize(("gap", "training", "interaction"), [(0.5, 0.1, 0.0), (0.8, 0.2, 0.5), (1.6, 0.5, 1.0)])
def test_power_is_the_share_of_studies_of_verdicts_that_tell(
    trainings: int, gap: float, training: float, interaction: float
) -> None:
    """Means on both sides of 1/2, so that the methods have equal components."""
    planted = Planted(centre=(-gap / 2, gap / 2), training=(training, training), interaction=interaction)
    components = planted.between(0), planted.interaction_of_verdicts(), planted.residual(0)
    expected = power_at(trainings, planted.difference(), *components, problems=80)
    assert 0.1 < expected < 0.999
    studies = zip(*planted.draw(trainings, 500, (trainings, trainings), 80), strict=True)
    assert np.mean([method_difference(a, b).p <= 0.05 for a, b in studies]) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("trainings", [2, 3, 6])
def test_power_of_scalars_is_the_share_of_studies_that_tell(trainings: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 20_000, trainings))
    told = stats.ttest_ind(x, y + 2.5, axis=1, equal_var=False).pvalue <= 0.05
    assert power_at_scalar(trainings, 2.5, 1.0) == pytest.approx(told.mean(), abs=0.01)
    assert scalar_difference(x[0], y[0] + 2.5).p == pytest.approx(
        stats.ttest_ind(x[0], y[0] + 2.5, equal_var=False).pvalue
    )


def test_many_trainings_of_a_scalar_have_the_power_of_students_test() -> None:
    """Welch's test is then Student's, with its noncentral t."""
    assert power_at_scalar(64, 1.0, 2.0, alpha=0.01) == pytest.approx(TTestIndPower().power(0.5, 64, 0.01), abs=0.005)
    assert trainings_needed_scalar(1.0, 2.0) == math.ceil(TTestIndPower().solve_power(0.5, power=0.8, alpha=0.05))


def test_many_trainings_have_the_power_of_the_paired_test() -> None:
    """Gaps between methods at a problem then vary by 2 interaction alone."""
    expected = TTestPower().power(0.3 / math.sqrt(2 * 0.5), 80, 0.05)
    assert power_at(MOST, 0.3, 0.1, 0.5, 0.2, 80) == pytest.approx(expected, abs=0.005)
    assert power_at(2, 0.3, 0, 0.5, 0, 80) == pytest.approx(expected, abs=0.005)


def test_many_problems_leave_welchs_test_of_the_trainings() -> None:
    assert power_at(4, 0.1, 0.0025, 0.1, 0.1, 10**9) == pytest.approx(power_at_scalar(4, 0.1, 0.05), abs=1e-3)


@pytest.mark.parametrize("difference", [0.05, 0.1, -0.1, 0.3])
def test_needed_is_the_least_number(difference: float) -> None:
    needed = trainings_needed(difference, **SEEN)
    assert needed.reason is None and needed.problems is None
    number = needed.trainings
    assert number is not None and power_at(number, difference, **SEEN) >= 0.8
    assert number == 2 or power_at(number - 1, difference, **SEEN) < 0.8


def test_a_larger_difference_needs_fewer_trainings_and_more_power_needs_more() -> None:
    numbers = [trainings_needed(difference, **SEEN).trainings for difference in (0.05, 0.1, 0.3)]
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) == 3
    more = trainings_needed(0.1, **SEEN, power=0.95).trainings
    assert more is not None and more > numbers[1]
    assert trainings_needed(0.1, **SEEN, alpha=0.05 / 15).trainings > numbers[1]


def test_problems_are_needed_where_no_number_of_trainings_is_enough() -> None:
    """A difference of 2 se of the problems' part: told with power 1/2 by however many trainings."""
    plan = {**SEEN, "between": 0.00001}
    needed = trainings_needed(0.02, **plan, planned=5)
    assert needed.trainings is None and needed.problems is not None
    assert needed.reason == "200 problems leave a standard error of 0.01"
    for problems, enough in ((needed.problems, True), (needed.problems - 1, False)):
        assert (power_at(5, 0.02, **{**plan, "problems": problems}) >= 0.8) is enough


def test_neither_more_trainings_nor_more_problems_alone_are_enough() -> None:
    needed = trainings_needed(0.02, **SEEN)
    reason = "200 problems leave a standard error of 0.01, 3 trainings of each method one of 0.016"
    assert needed == Needed(None, None, reason)


@pytest.mark.parametrize("trainings", [2, 3, 10])
def test_what_is_detectable_has_the_power(trainings: int) -> None:
    found = detectable(trainings, **SEEN, power=0.9, alpha=0.01)
    assert power_at(trainings, found, **SEEN, alpha=0.01) == pytest.approx(0.9, abs=1e-4)
    assert power_at_scalar(trainings, detectable_scalar(trainings, 3.0), 3.0) == pytest.approx(0.8, abs=1e-4)


def test_the_pages_table_is_what_is_detectable() -> None:
    rows = re.findall(r"^\| ([\d ]+) \| (\d) \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 6
    for problems, points, cells in rows:
        for trainings, cell in zip((2, 3, 5, 10), cells.split("|"), strict=True):
            found = 100 * detectable(trainings, (int(points) / 100) ** 2, 0.01, 0.1, int(problems.replace(" ", "")))
            assert float(cell) == pytest.approx(found, rel=0.05)


def test_without_a_difference_power_is_at_most_alpha() -> None:
    assert all(power_at(trainings, 0.0, **SEEN) <= 0.05 for trainings in (2, 3, 5, 20))


def test_plans_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="two or more trainings"):
        power_at(1, 0.1, **SEEN)
    with pytest.raises(ValueError, match="not negative"):
        power_at(2, 0.1, -1e-3, 0.01, 0.1, 200)
    with pytest.raises(ValueError, match="not all 0"):
        detectable(2, 0, 0, 0, 200)
    with pytest.raises(ValueError, match="need a difference"):
        trainings_needed(0, **SEEN)
    with pytest.raises(ValueError, match="alpha < power"):
        detectable(2, **SEEN, power=0.01)
    with pytest.raises(ValueError, match="0 < sd"):
        trainings_needed_scalar(1, 0)
