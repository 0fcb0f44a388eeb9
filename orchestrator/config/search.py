"""A search of each method's learning rate: an equal number of trials for every method, judged on held-out problems."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from execution.settings import Count, Positive, Seed
from orchestrator.config.values import Frozen, Several, Two

Algorithm = Literal["grid", "random", "asha", "tpe"]
LEAST = 2  # steps of the first rung: with a warm-up the first step changes nothing


class Search(Frozen):
    """Trains each method at several learning rates and goes on with the one that is best on the held-out problems.

    ``grid``: every one of ``learning_rates``. ``random``: ``trials`` rates, log-uniform ``between`` two. ``tpe``: as
    many, each suggested from the ones before. ``asha``: a list or drawn rates, each trained in parts (rungs), of which
    a trial goes on to the next if it is among the best 1 / ``reduction`` of its rung so far.
    """

    methods: Annotated[Several[str], Field(min_length=1)] | None = None  # all of the study where unset
    algorithm: Algorithm = "grid"
    learning_rates: Annotated[Several[Positive], Field(min_length=1)] | None = None
    between: Two[Positive] | None = None
    trials: Count | None = None  # a method
    seed: Seed = 0
    reduction: Annotated[int, Field(ge=2, le=100)] = 4
    grace: Annotated[int, Field(ge=LEAST, le=10**9)] | None = None  # first rung in steps; None: steps / reduction^2
    orders: Annotated[Several[Seed], Field(min_length=1)] | None = None  # at the chosen rate; None: the study's

    @field_validator("methods", "learning_rates", "orders")
    @classmethod
    def _once(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        for value in values or ():
            if (values or ()).count(value) > 1:
                raise ValueError(f"{value} is given twice")
        return values

    @model_validator(mode="after")
    def _complete(self) -> Search:
        drawn = self.algorithm in ("random", "tpe") or (self.algorithm == "asha" and self.learning_rates is None)
        if drawn and (self.between is None or self.trials is None):
            listed = ", or learning_rates" if self.algorithm == "asha" else ""
            raise ValueError(f"algorithm {self.algorithm} needs between and trials{listed}")
        if drawn and self.learning_rates is not None:
            raise ValueError(
                f"learning_rates: algorithm {self.algorithm} draws its rates between two: leave the list out"
            )
        if not drawn and self.learning_rates is None:
            raise ValueError("algorithm grid needs learning_rates")
        if not drawn and (self.between is not None or self.trials is not None):
            raise ValueError("between and trials draw rates: leave them out beside learning_rates")
        if self.between is not None and self.between[0] >= self.between[1]:
            low, high = self.between
            raise ValueError(f"between: the lower rate comes first, not {low:g} and {high:g}")
        if self.algorithm != "asha" and self.grace is not None:
            raise ValueError(f"grace: algorithm {self.algorithm} trains every trial to the end: leave it out")
        return self

    @property
    def count(self) -> int:
        """Trials of each method."""
        return len(self.learning_rates) if self.learning_rates is not None else self.trials or 0

    def rungs(self, steps: int) -> tuple[int, ...]:
        """After how many steps a trial of so many is judged: with ASHA each rung and the end, else the end alone.

        ``ValueError`` where ASHA would have no rung before the end.
        """
        if self.algorithm != "asha":
            return (steps,)
        rung = self.grace or max(LEAST, math.ceil(steps / self.reduction**2))
        found = []
        while rung < steps:
            found.append(rung)
            rung *= self.reduction
        if not found:
            raise ValueError(
                f"search.grace: asha stops trials before their end, and the first rung, {rung} steps, is not before "
                f"{steps}: set search.grace below that, or search.algorithm=grid"
            )
        return (*found, steps)
