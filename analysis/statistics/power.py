"""Trainings, or problems, that tell two methods apart by ``method_difference`` or ``scalar_difference``.

T trainings of each method and P problems are planned from components of variance, which both methods are taken to
share: ``between``, ``interaction`` and ``residual`` as in ``MethodDifference``, or the standard deviation between
trainings of a scalar.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from analysis.statistics.trainings import degrees_of_freedom, welch_freedom

ALPHA = 0.05
POWER = 0.8
MOST = 2**16  # trainings or problems that are tried
NODES_OF_TRAININGS, NODES_OF_PROBLEMS = 32, 8  # for each mean square; power is then exact to .005


@dataclass(frozen=True)
class Needed:
    """The least number of trainings of each method, or why none is enough and what would be."""

    trainings: int | None
    problems: int | None = None  # if trainings is None: the least number that is enough at the given trainings, if any
    reason: str | None = None  # if trainings is None


@dataclass(frozen=True)
class _Test:
    """The test under a plan: its standard error, and equally likely values of what difference / error must exceed."""

    error: float
    critical: np.ndarray

    def power(self, difference: float) -> float:
        shift = abs(difference) / self.error
        return float((special.ndtr(shift - self.critical) + special.ndtr(-shift - self.critical)).mean())


def power_at(
    trainings: int,
    difference: float,
    between: float,
    interaction: float,
    residual: float,
    problems: int,
    alpha: float = ALPHA,
) -> float:
    """The probability that ``method_difference`` gives p <= alpha if the methods' true means differ by ``difference``.

    The difference is normal; over the mean squares, which are independent of it and chi-squared, the probability is
    integrated numerically, as the noncentral t is where there is one mean square. Raises ValueError for fewer than two
    trainings or problems, a variance that is negative or infinite, no variance at all, or alpha outside (0, 1).
    """
    return _method_test(trainings, between, interaction, residual, problems, alpha).power(difference)


def detectable(
    trainings: int,
    between: float,
    interaction: float,
    residual: float,
    problems: int,
    power: float = POWER,
    alpha: float = ALPHA,
) -> float:
    """The smallest true difference of the methods' means that is told from zero with this power. Raises as power_at."""
    return _smallest_difference(_method_test(trainings, between, interaction, residual, problems, alpha), power, alpha)


def trainings_needed(
    difference: float,
    between: float,
    interaction: float,
    residual: float,
    problems: int,
    power: float = POWER,
    alpha: float = ALPHA,
    planned: int = 3,
) -> Needed:
    """How many trainings of each method tell a true ``difference`` from zero with this power.

    More trainings do not reduce the variance 2 interaction / P. If that alone is too large, ``trainings`` is None and
    ``problems`` is the number of problems that is enough with ``planned`` trainings of each method. Raises ValueError
    for no difference, and as ``power_at``.
    """
    _check(difference, power, alpha)

    def enough(trainings: int, problems: int) -> bool:
        return power_at(trainings, difference, between, interaction, residual, problems, alpha) >= power

    needed = _least(lambda trainings: enough(trainings, problems))
    if needed is not None:
        return Needed(needed)
    more = _least(lambda number: enough(planned, number))
    reason = f"{problems} problems leave a standard error of {math.sqrt(2 * interaction / problems):.2g}"
    if more is None:
        reason += f", {planned} trainings of each method one of {math.sqrt(2 * between / planned):.2g}"
    return Needed(None, more, reason)


def power_at_scalar(trainings: int, difference: float, sd: float, alpha: float = ALPHA) -> float:
    """``power_at`` for ``scalar_difference``; ``sd`` is the standard deviation between trainings of one method."""
    return _scalar_test(trainings, sd, alpha).power(difference)


def detectable_scalar(trainings: int, sd: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """``detectable`` for ``scalar_difference``."""
    return _smallest_difference(_scalar_test(trainings, sd, alpha), power, alpha)


def trainings_needed_scalar(difference: float, sd: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """How many trainings of each method tell a true ``difference`` of a scalar from zero; None if over ``MOST``."""
    _check(difference, power, alpha)
    return _least(lambda trainings: power_at_scalar(trainings, difference, sd, alpha) >= power)


def _method_test(
    trainings: int, between: float, interaction: float, residual: float, problems: int, alpha: float
) -> _Test:
    parts = (between, interaction, residual)
    if not all(0 <= part < math.inf for part in parts) or not any(parts):
        raise ValueError(f"variances are finite, not negative, and not all 0, got {parts}")
    if trainings < 2 or problems < 2 or not 0 < alpha < 1:
        raise ValueError(f"need two or more trainings and problems and 0 < alpha < 1, got {trainings, problems, alpha}")
    noise = residual / (trainings * problems)  # in the variance of one method's mean
    of_problems = 2 * interaction / problems + 2 * noise
    squares = (between / trainings + noise) * _scaled_chi_squares(trainings - 1, NODES_OF_TRAININGS)
    first, second = squares[:, None, None], squares[None, :, None]
    estimated = np.maximum(of_problems * _scaled_chi_squares(problems - 1, NODES_OF_PROBLEMS), 2 * noise)
    variance = np.maximum(first - noise, 0) + np.maximum(second - noise, 0) + estimated
    freedom_of_trainings: float | np.ndarray = 1.0  # of nothing, if trainings do not vary
    if between or residual:
        freedom_of_trainings = welch_freedom((first, second), (trainings, trainings))
    freedom = degrees_of_freedom(variance, first + second, freedom_of_trainings, estimated, problems)
    error = math.sqrt(2 * between / trainings + of_problems)
    return _Test(error, special.stdtrit(freedom, 1 - alpha / 2) * np.sqrt(variance) / error)


def _scalar_test(trainings: int, sd: float, alpha: float) -> _Test:
    if not 0 < sd < math.inf or trainings < 2 or not 0 < alpha < 1:
        raise ValueError(f"need two or more trainings, 0 < sd and 0 < alpha < 1, got {trainings, sd, alpha}")
    squares = sd**2 / trainings * _scaled_chi_squares(trainings - 1, NODES_OF_TRAININGS)
    first, second = squares[:, None], squares[None, :]
    freedom = welch_freedom((first, second), (trainings, trainings))
    error = sd * math.sqrt(2 / trainings)
    return _Test(error, special.stdtrit(freedom, 1 - alpha / 2) * np.sqrt(first + second) / error)


def _scaled_chi_squares(freedom: int, nodes: int) -> np.ndarray:
    """Equally likely values of chi-squared over its degrees of freedom: the middles of ``nodes`` quantiles."""
    return 2 * special.gammaincinv(freedom / 2, (np.arange(nodes) + 0.5) / nodes) / freedom


def _smallest_difference(test: _Test, power: float, alpha: float) -> float:
    _check(1.0, power, alpha)
    most = test.error
    while test.power(most) < power:
        most *= 2
    return float(optimize.brentq(lambda difference: test.power(difference) - power, 0.0, most, rtol=1e-6))


def _least(enough: Callable[[int], bool]) -> int | None:
    """The least number from 2 to MOST that is enough, if all above it are too; None if MOST is not."""
    high = 2
    while not enough(high):
        if high >= MOST:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check(difference: float, power: float, alpha: float) -> None:
    if not difference or not math.isfinite(difference) or not 0 < alpha < power < 1:
        raise ValueError(f"need a difference and 0 < alpha < power < 1, got {difference, power, alpha}")
