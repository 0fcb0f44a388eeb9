"""Several samples a problem: pass@k, maj@k, and intervals that draw problems anew, never samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats

from analysis.statistics.significance import paired_interval, wilson

DRAWS = 2000  # of the bootstrap
LEVEL = 0.95  # of every interval


def ladder(samples: int) -> list[int]:
    """The k of pass@k that are reported: 1, 2, 4, ... and ``samples`` itself."""
    return sorted({2**i for i in range(samples.bit_length())} | {samples})


def pass_at(k: int, right: int, samples: int) -> float:
    """Chance that one of k samples of a problem is right, where ``right`` of ``samples`` were.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1), in whole numbers
    up to the one division.
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {right} right in {samples} samples: need right and k (1 or more) up to samples")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def majority(votes: Sequence[str | None], correct: Sequence[bool]) -> float:
    """maj@k of one problem: 1 where most of its k samples give the right answer, 0 where most give one wrong one.

    ``votes`` are the answers in a form in which equal ones are equal text, None where none was found. All right samples
    are one class, however they are written, and a sample without an answer votes for nothing (majority vote of
    self-consistency, Wang et al. 2022, arXiv 2203.11171). A tie is broken by a fair draw, of which this is the
    expectation: 1/2 between the right answer and one wrong one.
    """
    wrong = Counter(vote for vote, right in zip(votes, correct, strict=True) if not right and vote is not None)
    found = [sum(map(bool, correct)), *wrong.values()]
    most = max(found)
    return 1 / found.count(most) if most and found[0] == most else 0.0


def bootstrap(values: Sequence[float], level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of one value a problem (Efron and Tibshirani 1993, chapter 13).

    Problems are drawn with replacement, each with all its samples, so that samples of one problem are not taken as
    independent. The generator is seeded: the same values give the same interval.
    """
    found, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    n = len(values)
    # How often each value comes up among n draws: the same distribution as drawing the problems themselves.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=draws)
    means = (drawn * found).sum(axis=1) / n
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_interval(right: Sequence[int], samples: int) -> tuple[float, float]:
    """95 % interval of the mean share right over problems, ``right`` samples of ``samples`` each.

    Wilson's for one sample a problem, and where every problem is solved always or never. Else Clopper and Pearson's of
    the effective number of samples: the whole number over the design effect, by how much samples of one problem agree
    (Korn and Graubard 1998, Survey Methodology 24, section 2, with their adjustment of the degrees of freedom). The
    design effect is taken with one problem more, half of whose samples are right, all-or-none, as Agresti and Coull
    (1998) add to a share: a few right samples of a hard benchmark say little about how they cluster, and the interval
    then is that of as many samples as there are problems. Problems drawn from a beta-binomial, 12 to 200 of them with 2
    to 16 samples, lie within it 94 to 99 % of the time at every share from .0005 to .997.
    """
    n = len(right)
    if samples == 1 or set(right) in ({0}, {samples}):
        return wilson(round(sum(right) / samples), n)
    shares = np.asarray(right, dtype=float) / samples
    mean = float(shares.mean())
    centre = (shares.sum() + 0.5) / (n + 1)
    squares = ((shares - centre) ** 2).sum() + 0.5 * centre**2 + 0.5 * (1 - centre) ** 2
    design = samples * squares / n / (centre * (1 - centre))
    quantile = 0.5 + LEVEL / 2
    adjustment = (stats.t.ppf(quantile, n * samples - 1) / stats.t.ppf(quantile, max(n - 1, 1))) ** 2
    effective = max(n, adjustment * n * samples / min(max(design, 1.0), samples))
    k, rest = mean * effective, (1 - mean) * effective
    return float(stats.beta.ppf((1 - LEVEL) / 2, k, rest + 1)), float(stats.beta.ppf(quantile, k + 1, rest))


def difference_interval(steps: Sequence[int], samples: int) -> tuple[float, float]:
    """95 % interval of the mean difference of two shares right; ``steps``: each problem's difference in right samples.

    Bonett and Price's for one sample a problem, the bootstrap over problems for more. Where all problems differ alike
    the bootstrap sees no spread at all: Bonett and Price's then, as if that share of the problems were solved whole.
    """
    if samples == 1 or len(set(steps)) == 1:
        fell, rose = (sum(max(0, sign * d) for d in steps) / samples for sign in (-1, 1))
        return paired_interval(round(fell), round(rose), len(steps))
    return bootstrap([d / samples for d in steps])
