"""Verdicts of two methods' trainings with planted effects, and the components of variance that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats


@dataclass(frozen=True)
class Planted:
    """Verdicts are 1 where a sum of normal effects, with unit noise, is above 0; all effects are known.

    ``centre`` of each method, ``problem`` and ``interaction`` of both, ``training`` of each: standard deviations.
    """

    centre: tuple[float, float]
    training: tuple[float, float]
    problem: float = 1.0
    interaction: float = 0.0

    def draw(self, seed: int, studies: int, trainings: tuple[int, int], problems: int) -> tuple[np.ndarray, np.ndarray]:
        """Verdicts of both methods, studies x trainings x problems."""
        rng = np.random.default_rng(seed)
        shared = self.problem * rng.standard_normal((studies, 1, problems), dtype=np.float32)
        methods = []
        for centre, spread, number in zip(self.centre, self.training, trainings, strict=True):
            total = centre + shared + self.interaction * rng.standard_normal((studies, 1, problems), dtype=np.float32)
            total = total + spread * rng.standard_normal((studies, number, 1), dtype=np.float32)
            methods.append(total + rng.standard_normal((studies, number, problems), dtype=np.float32) > 0)
        return methods[0], methods[1]

    def scale(self, method: int) -> float:
        return math.sqrt(self.problem**2 + self.interaction**2 + self.training[method] ** 2 + 1)

    def difference(self) -> float:
        """Phi(centre / the standard deviation of the sum) of the second method minus that of the first."""
        first, second = (float(special.ndtr(self.centre[m] / self.scale(m))) for m in (0, 1))
        return second - first

    def _covariance(self, first: int, second: int, shared: float) -> float:
        """Of a verdict of each method, whose sums have ``shared`` variance in common."""
        x, y = self.centre[first] / self.scale(first), self.centre[second] / self.scale(second)
        correlation = shared / self.scale(first) / self.scale(second)
        both = stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]]).cdf([x, y])
        return float(both - special.ndtr(x) * special.ndtr(y))

    def between(self, method: int) -> float:
        """The covariance of one training's verdicts at two problems."""
        return self._covariance(method, method, self.training[method] ** 2)

    def interaction_of_verdicts(self) -> float:
        """Half the variance of the difference between the methods' expectations at a problem."""
        own = sum(self._covariance(m, m, self.problem**2 + self.interaction**2) for m in (0, 1))
        return own / 2 - self._covariance(0, 1, self.problem**2)

    def residual(self, method: int) -> float:
        """What is left of the variance of a verdict without the covariances that its training and problem give it."""
        share = float(special.ndtr(self.centre[method] / self.scale(method)))
        problem = self._covariance(method, method, self.problem**2 + self.interaction**2)
        return share * (1 - share) - problem - self.between(method)
