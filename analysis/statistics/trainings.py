"""Differences between methods, from several trainings of each, with what other trainings and problems would change.

Letters: T trainings of one method, P problems, m a method, t its training, p a problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import special

LEVEL = 0.95  # of every interval
ROUNDING = 1e-12  # a standard error this small beside the values is rounding: nothing varies

Values = TypeVar("Values", float, np.ndarray)


@dataclass(frozen=True)
class MethodDifference:
    """The difference of two methods' mean shares right, with its components of variance.

    A component is the variance of one effect on one share right, estimated without bias unless ``truncated`` names it:
    then the estimate was negative, and 0 is reported and used. None: these trainings do not determine it.
    """

    trainings: tuple[int, int]
    problems: int
    difference: float  # mean of the second method minus mean of the first
    between_a: float | None  # between the first method's trainings, in their means over all problems
    between_b: float | None
    between: float | None  # of both methods, weighted by T - 1
    interaction: float | None  # method x problem: half the variance over problems of the methods' true difference
    residual: float | None  # training x problem and sampling, of both methods, weighted by T - 1
    problem_error: float  # standard error if these trainings are compared on other problems
    standard_error: float | None  # if other trainings are compared on other problems
    degrees_of_freedom: float | None
    interval: tuple[float, float] | None
    p: float | None  # two-sided, that the methods' means over all trainings and problems are equal
    pooled: bool  # one method has one training: its trainings are assumed to vary as the other's
    truncated: tuple[str, ...]


@dataclass(frozen=True)
class ScalarDifference:
    """The difference of two methods' means of one scalar per training; None where a method has one training."""

    trainings: tuple[int, int]
    difference: float  # mean of the second method minus mean of the first
    standard_error: float | None
    degrees_of_freedom: float | None
    interval: tuple[float, float] | None
    p: float | None  # two-sided, that the means over all trainings are equal


@dataclass(frozen=True)
class _MeanSquares:
    """Of two or more trainings of one method."""

    freedom: int  # T - 1
    variance: float  # of the trainings' means over problems; its expectation is between + residual / P
    residual: float
    between: float  # may be negative

    @classmethod
    def of(cls, shares: np.ndarray) -> _MeanSquares:
        trainings, problems = shares.shape
        means = shares.mean(axis=1)
        variance = float(means.var(ddof=1))
        left = shares - means[:, None] - shares.mean(axis=0) + shares.mean()
        residual = float((left**2).sum()) / ((trainings - 1) * (problems - 1))
        return cls(trainings - 1, variance, residual, variance - residual / problems)


def method_difference(a: np.ndarray, b: np.ndarray, level: float = LEVEL) -> MethodDifference:
    """The second method's mean minus the first's, for other trainings of both and other problems of this kind.

    ``a`` (T_a x P) and ``b`` (T_b x P): the share right of each training (row) at each problem (column), 0 or 1 for
    one sample; the columns are the same problems. The model is

        share_mtp = mean_m + problem_p + training_mt + (method x problem)_mp + residual_mtp

    with trainings random within their method and crossed with random problems. The components are those of balanced
    crossed data, from mean squares (Searle, Casella and McCulloch 1992, chapter 4; Brennan 2001, chapter 3). They are
    unbiased for any distribution, 0 and 1 included, if trainings and problems are drawn independently. With them

        se^2 = between_a / T_a + between_b / T_b + (2 interaction + residual_a / T_a + residual_b / T_b) / P

    and difference / se is compared with Student's t (``degrees_of_freedom``). On simulated 0/1 verdicts the 95 %
    interval covers 95.8 % or more with T = 2 and 3 and 94.6 % with T = 5 if both methods' trainings vary alike, 93.5 %
    if one's standard deviation is twice the other's, 91 % if four times (docs/measurements/trainings.md).

    If one method has one training, the other's between and residual serve for both (``pooled``); nothing in the data
    can check that. If both have one, standard error, interval and p are None. Interval and p are None too if nothing
    varies.

    Raises ValueError for other shapes, fewer than two problems, or a share that is not finite.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 2 or b.ndim != 2 or not len(a) or not len(b) or a.shape[1] != b.shape[1] or a.shape[1] < 2:
        raise ValueError(f"need trainings x problems, the same two or more problems, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a share right is not finite")
    gaps = b.mean(axis=0) - a.mean(axis=0)
    if len(a) == len(b) == 1:
        return _of_one_training_each(gaps)
    each = [_MeanSquares.of(shares) if len(shares) > 1 else None for shares in (a, b)]
    return _of_mean_squares(gaps, each, (len(a), len(b)), level)


def _of_one_training_each(gaps: np.ndarray) -> MethodDifference:
    return MethodDifference(
        trainings=(1, 1),
        problems=len(gaps),
        difference=float(gaps.mean()),
        between_a=None,
        between_b=None,
        between=None,
        interaction=None,
        residual=None,
        problem_error=math.sqrt(gaps.var(ddof=1) / len(gaps)),
        standard_error=None,
        degrees_of_freedom=None,
        interval=None,
        p=None,
        pooled=False,
        truncated=(),
    )


def _of_mean_squares(
    gaps: np.ndarray, each: Sequence[_MeanSquares | None], counts: tuple[int, int], level: float
) -> MethodDifference:
    """``gaps``: each problem's difference of the methods' means; ``each`` is None for a method with one training."""
    known = [squares for squares in each if squares]
    used = [squares or known[0] for squares in each]
    noise = sum(squares.residual / count for squares, count in zip(used, counts, strict=True))
    weights = [squares.freedom for squares in known]
    estimates = {
        **{name: squares.between for name, squares in zip(("between_a", "between_b"), each, strict=True) if squares},
        "between": float(np.average([squares.between for squares in known], weights=weights)),
        "interaction": (float(gaps.var(ddof=1)) - noise) / 2,
    }
    components = {name: max(0.0, estimate) for name, estimate in estimates.items()}
    problem_part = (2 * components["interaction"] + noise) / len(gaps)
    variance = problem_part + sum(max(0.0, squares.between) / n for squares, n in zip(used, counts, strict=True))
    of_means = (used[0].variance / counts[0], used[1].variance / counts[1])
    freedom = interval = p = None
    difference = float(gaps.mean())
    if math.sqrt(variance) > ROUNDING:
        of_trainings, freedom_of_trainings = sum(of_means), float(known[0].freedom)
        if len(known) == 2 and of_trainings:
            freedom_of_trainings = welch_freedom(of_means, counts)
        freedom = degrees_of_freedom(variance, of_trainings, freedom_of_trainings, problem_part, len(gaps))
        interval, p = _t_test(difference, variance, freedom, level)
    return MethodDifference(
        trainings=counts,
        problems=len(gaps),
        difference=difference,
        between_a=components.get("between_a"),
        between_b=components.get("between_b"),
        between=components["between"],
        interaction=components["interaction"],
        residual=float(np.average([squares.residual for squares in known], weights=weights)),
        problem_error=math.sqrt(problem_part),
        standard_error=math.sqrt(variance),
        degrees_of_freedom=freedom,
        interval=interval,
        p=p,
        pooled=len(known) == 1,
        truncated=tuple(name for name, estimate in estimates.items() if estimate < 0),
    )


def scalar_difference(x: Sequence[float], y: Sequence[float], level: float = LEVEL) -> ScalarDifference:
    """The mean of ``y`` minus the mean of ``x``, a scalar of each training of two methods, by Welch's t (Welch 1947).

    Standard error, interval and p are None if a method has one training, interval and p also if nothing varies. Raises
    ValueError if a method has none, or for a value that is not finite.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if a.ndim != 1 or b.ndim != 1 or not len(a) or not len(b):
        raise ValueError(f"need one value of each training of both methods, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a value is not finite")
    counts, difference = (len(a), len(b)), float(b.mean() - a.mean())
    if min(counts) == 1:
        return ScalarDifference(counts, difference, None, None, None, None)
    of_means = (float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b))
    variance = sum(of_means)
    if math.sqrt(variance) <= ROUNDING * max(np.abs(a).max(), np.abs(b).max()):
        return ScalarDifference(counts, difference, math.sqrt(variance), None, None, None)
    freedom = welch_freedom(of_means, counts)
    interval, p = _t_test(difference, variance, freedom, level)
    return ScalarDifference(counts, difference, math.sqrt(variance), freedom, interval, p)


def welch_freedom(variances: tuple[Values, Values], trainings: tuple[int, int]) -> Values:
    """Welch's degrees of freedom of the difference of two means, from the means' variances (Welch 1947)."""
    (a, b), (trainings_a, trainings_b) = variances, trainings
    return (a + b) ** 2 / (a**2 / (trainings_a - 1) + b**2 / (trainings_b - 1))


def degrees_of_freedom(
    variance: Values, of_trainings: Values, freedom_of_trainings: Values, of_problems: Values, problems: int
) -> Values:
    """f of Student's t for an estimated ``variance`` that problems and trainings, both random, contribute to.

    1 / f = w / g + v / (P - 1): w is ``of_trainings`` / ``variance`` from the variances of the trainings' means, g
    their degrees of freedom, v is ``of_problems`` / ``variance``. Satterthwaite (1946) has w^2 and v^2 and so a larger
    f, too large with two or three trainings: if these differ little by chance, standard error and quantile both come
    out small. Coverage at T = 2 is then 93.4 % instead of 95.9 %.
    """
    return variance / (of_trainings / freedom_of_trainings + of_problems / (problems - 1))


def _t_test(difference: float, variance: float, freedom: float, level: float) -> tuple[tuple[float, float], float]:
    error = math.sqrt(variance)
    reach = float(special.stdtrit(freedom, 0.5 + level / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(difference) / error))
    return (difference - reach, difference + reach), p
