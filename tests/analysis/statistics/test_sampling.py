"""pass@k and maj@k against every choice of samples, and what the bootstrap over problems covers."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter

import numpy as np
import pytest

from analysis.statistics.sampling import bootstrap, difference_interval, ladder, majority, pass_at, share_interval
from analysis.statistics.significance import paired_interval, wilson


def test_the_ladder_of_k() -> None:
    assert [ladder(n) for n in (1, 2, 3, 4, 6, 16)] == [
        [1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 4, 6], [1, 2, 4, 8, 16],
    ]  # fmt: skip


@pytest.mark.parametrize("samples", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_all_choices_of_k_with_a_right_one(samples: int) -> None:
    for right in range(samples + 1):
        drawn = [i < right for i in range(samples)]
        for k in range(1, samples + 1):
            choices = [any(some) for some in itertools.combinations(drawn, k)]
            assert pass_at(k, right, samples) == pytest.approx(statistics.fmean(choices), rel=1e-12)


def test_pass_at_k_of_many_samples_is_exact_and_unbiased() -> None:
    """Over binomial counts its mean is 1 - (1 - p)^k, which the plain estimate from c / n misses."""
    assert pass_at(1, 3, 8) == 3 / 8 and pass_at(100, 1, 1000) == pytest.approx(0.1, rel=1e-12)
    from scipy.stats import binom

    n, k, p = 10, 4, 0.2
    expected = sum(float(binom.pmf(c, n, p)) * pass_at(k, c, n) for c in range(n + 1))
    plain = sum(float(binom.pmf(c, n, p)) * (1 - (1 - c / n) ** k) for c in range(n + 1))
    assert expected == pytest.approx(1 - (1 - p) ** k, rel=1e-12) and plain < expected - 0.01
    for wrong in ((0, 1, 2), (3, 1, 2), (1, 3, 2), (1, -1, 2)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at(*wrong)


def voted(votes: tuple[str | None, ...], right: str) -> float:
    """maj@k by hand: a fair draw among the answers that most samples give."""
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return 0.0
    winners = [answer for answer, count in counts.items() if count == max(counts.values())]
    return winners.count(right) / len(winners)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
def test_majority_over_every_combination_of_answers(samples: int) -> None:
    for votes in itertools.product(("7", "8", "9", None), repeat=samples):
        assert majority(votes, [vote == "7" for vote in votes]) == voted(votes, "7"), votes


def test_right_samples_are_one_class_however_they_are_written() -> None:
    assert majority(["1/2", "0.5", "3", "3", None], [True, True, False, False, False]) == 0.5
    assert majority(["1/2", "0.5", "50%", "3", "3"], [True, True, True, False, False]) == 1
    assert majority([None, None, "3"], [False, False, True]) == 1, "samples without an answer do not outvote one with"
    assert majority([None, None], [False, False]) == 0


def test_the_bootstrap_covers_a_planted_mean() -> None:
    """Problems of every difficulty, 4 samples each: the interval holds the mean difficulty 95 % of the time."""
    generator, covered = np.random.default_rng(11), 0
    for study in range(400):
        difficulty = generator.beta(0.6, 0.4, size=120)  # mean 0.6, most near 0 or 1
        shares = generator.binomial(4, difficulty) / 4
        low, high = bootstrap(shares.tolist(), draws=500, seed=study)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 400 <= 0.97


def test_the_bootstrap_draws_problems_and_not_samples() -> None:
    """Where all samples of a problem agree, more samples tell nothing more: the interval is that of one sample."""
    right = [8] * 60 + [0] * 40
    low, high = share_interval(right, 8)
    one = wilson(60, 100)
    assert (low, high) == (pytest.approx(one[0], abs=0.012), pytest.approx(one[1], abs=0.012))
    as_if_independent = wilson(480, 800)
    assert high - low > 2 * (as_if_independent[1] - as_if_independent[0])


def test_the_bootstrap_equals_drawing_the_problems_themselves() -> None:
    values = [0.0, 0.25, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0] * 5
    drawn = np.random.default_rng(1).choice(values, size=(40_000, len(values))).mean(axis=1)
    expected = np.quantile(drawn, [0.05, 0.95])
    assert bootstrap(values, level=0.9, draws=40_000) == pytest.approx(expected, abs=0.004)
    assert bootstrap(values) == bootstrap(values) == bootstrap(values[::-1])


def test_an_interval_keeps_its_width_where_nothing_varies() -> None:
    assert share_interval([0] * 30, 4) == wilson(0, 30) and share_interval([4] * 30, 4) == wilson(30, 30)
    assert share_interval([1, 0, 1], 1) == wilson(2, 3)
    assert difference_interval([0] * 30, 4) == paired_interval(0, 0, 30)


def test_the_interval_of_a_difference_is_of_problems_too() -> None:
    assert difference_interval([1, -1, 0, 1], 1) == paired_interval(1, 2, 4)
    steps = [2, -1, 0, 4, 1, 0, -2, 3] * 4
    low, high = difference_interval(steps, 4)
    error = statistics.pstdev(steps) / 4 / len(steps) ** 0.5
    mean = statistics.fmean(steps) / 4
    assert (low, high) == (pytest.approx(mean - 1.96 * error, abs=0.015), pytest.approx(mean + 1.96 * error, abs=0.015))


def _mean_coverage(problems: int, samples: int, difficulty: np.ndarray, share: float) -> float:
    generator = np.random.default_rng(7)
    drawn = generator.choice(difficulty, size=(300, problems))
    studies = generator.binomial(samples, drawn)
    intervals = [share_interval(study.tolist(), samples) for study in studies]
    return float(np.mean([low <= share <= high for low, high in intervals]))


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2, 0.5, 0.98])
@pytest.mark.parametrize("alike", [0.01, 0.5, 0.9])
def test_the_interval_of_a_share_covers_it_at_every_difficulty(share: float, alike: float) -> None:
    """30 problems, 16 samples each, of a beta-binomial: hard, easy; samples of one problem alike or hardly."""
    spread = 1 / alike - 1
    pool = np.random.default_rng(3).beta(share * spread, (1 - share) * spread, size=200_000)
    assert _mean_coverage(30, 16, pool, float(pool.mean())) >= 0.93


def test_the_interval_of_a_share_covers_it_where_few_problems_are_solved_at_all() -> None:
    generator = np.random.default_rng(5)
    pool = np.where(generator.random(200_000) < 0.9, 0.0, generator.beta(2, 2, size=200_000))
    assert _mean_coverage(30, 16, pool, float(pool.mean())) >= 0.93


def test_one_right_sample_of_480_says_little() -> None:
    low, high = share_interval([1] + [0] * 29, 16)
    assert 0 <= low < 1e-4 and wilson(0, 30)[1] < high < wilson(1, 30)[1]
    easy = share_interval([15] + [16] * 29, 16)
    assert easy == (pytest.approx(1 - high), pytest.approx(1 - low, abs=1e-12))


def test_samples_that_do_not_cluster_count_in_full_and_those_that_do_as_one_a_problem() -> None:
    apart = share_interval([4, 5, 3, 4, 4, 3, 5, 4] * 5, 8)
    assert apart[1] - apart[0] < 1.15 * np.subtract(*wilson(160, 320)[::-1])
    whole = share_interval([8, 0] * 20, 8)
    assert whole == (pytest.approx(wilson(20, 40)[0], abs=0.02), pytest.approx(wilson(20, 40)[1], abs=0.02))
