"""Several samples per problem: pass@k, maj@k, and intervals that resample problems, never samples."""

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
    """The reported k of pass@k: 1, 2, 4, ... and ``samples`` itself."""
    return sorted({2**i for i in range(samples.bit_length())} | {samples})


def pass_at(k: int, right: int, samples: int) -> float:
    """pass@k of one problem: the probability that one of k samples is right, given ``right`` of ``samples``.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1), in integers up
    to the one division.
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {right} right in {samples} samples: need right and k (1 or more) up to samples")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def majority(votes: Sequence[str | None], correct: Sequence[bool]) -> float:
    """maj@k of one problem: 1 if the most frequent answer of its k samples is right, else 0.

    ``votes`` are normalised answers, equal as text if they are equal, None if there is no answer. All right samples
    are one class, however they are written, and samples without an answer do not vote (majority vote of
    self-consistency, Wang et al. 2022, arXiv 2203.11171). A tie is broken by a fair draw, of which this is the
    expectation: 1/2 between the right answer and one wrong one.
    """
    wrong = Counter(vote for vote, right in zip(votes, correct, strict=True) if not right and vote is not None)
    counts = [sum(map(bool, correct)), *wrong.values()]
    most = max(counts)
    return 1 / counts.count(most) if most and counts[0] == most else 0.0


def bootstrap(values: Sequence[float], level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of one value per problem (Efron and Tibshirani 1993, chapter 13).

    Problems are drawn with replacement, each with all its samples, so that samples of one problem are not treated as
    independent. The generator is seeded: the same values give the same interval.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    n = len(values)
    # The count of each value among n draws, which has the same distribution as drawing the problems themselves.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=draws)
    means = (drawn * distinct).sum(axis=1) / n
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_interval(right: Sequence[int], samples: int) -> tuple[float, float]:
    """95 % interval of the mean accuracy over problems, each with ``right`` of ``samples`` samples right.

    Wilson's for one sample per problem, and where every problem is solved always or never. Else Clopper and Pearson's
    for the effective number of samples: their number over the design effect, which grows with the agreement of samples
    of one problem (Korn and Graubard 1998, Survey Methodology 24, section 2, with their adjustment of the degrees of
    freedom). The design effect includes one additional problem that is all right or all wrong with probability 1/2
    each, as Agresti and Coull (1998) add to a proportion: a few right samples of a hard benchmark tell little about
    clustering, and the interval is then that of as many samples as problems. Coverage on beta-binomial problems (12 to
    200 of them, 2 to 16 samples, mean .0005 to .997) is 94 to 99 %.
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
    """95 % interval of the mean difference of two accuracies; ``steps``: each problem's difference in right samples.

    Bonett and Price's for one sample per problem, the bootstrap over problems for more. If all differences are equal
    the bootstrap has zero width: then Bonett and Price's, as if that fraction of the problems differed in all samples.
    """
    if samples == 1 or len(set(steps)) == 1:
        fell, rose = (sum(max(0, sign * d) for d in steps) / samples for sign in (-1, 1))
        return paired_interval(round(fell), round(rose), len(steps))
    return bootstrap([d / samples for d in steps])
