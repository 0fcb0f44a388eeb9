"""The trials of one method's search: their learning rates, and the two steps of each rung, a training and its
validation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from execution.context import Ask
from execution.step import Step
from methods.seeds import derive
from orchestrator.planning.training_runs import run_name
from orchestrator.steps.trials.validate import VALIDATION

if TYPE_CHECKING:
    from orchestrator.config.search import Search

DIGITS = 3  # of a drawn rate


def rates_of(search: Search) -> tuple[float, ...] | None:
    """The learning rates in the order of their trials, the same for every method; None where trials suggest them.

    With ASHA a list is shuffled: its first trials go on for lack of others, and a list in order has its slowest first.
    """
    generator = np.random.default_rng(derive("search", search.seed))
    if search.learning_rates is not None:
        rates = sorted(search.learning_rates)
        return (
            tuple(rates[i] for i in generator.permutation(len(rates))) if search.algorithm == "asha" else tuple(rates)
        )
    if search.algorithm == "tpe":
        return None
    assert search.between is not None
    low, high = search.between
    drawn: list[float] = []
    for _ in range(100 * search.count):
        rate = rounded(math.exp(generator.uniform(math.log(low), math.log(high))), low, high)
        if rate not in drawn:
            drawn.append(rate)
        if len(drawn) == search.count:
            return tuple(drawn)
    raise ValueError(
        f"search.between: {low:g} to {high:g} does not hold {search.count} rates of {DIGITS} digits: widen it, or "
        "lower search.trials"
    )


def rounded(rate: float, low: float, high: float) -> float:
    """A drawn rate to ``DIGITS`` significant digits, so that its name is short, and within its range."""
    return min(max(float(f"{rate:.{DIGITS - 1}e}"), low), high)


@dataclass(frozen=True)
class Trials:
    """``train``: the method's training at its own rate; ``validate``: its validation, without the adapter; ``rungs``:
    after how many steps a trial is judged, the last of them the whole training."""

    train: Step
    validate: Step
    rungs: Sequence[int]

    @classmethod
    def of(cls, config: Mapping[str, Any], runtime: Mapping[str, Any]) -> Trials:
        """The trials of a search step."""
        return cls(runtime["train"], runtime["validate"], config["rungs"])

    @property
    def method(self) -> str:
        return self.train.name

    def name(self, rate: float) -> str:
        """The name of a whole trial, which is that of the method's training at this rate wherever else it occurs."""
        return run_name(self.method, {} if rate == self.train.config["learning_rate"] else {"learning_rate": rate}, {})

    def training(self, rate: float, rung: int) -> Step:
        """The training up to a rung, by its number. At the last it is the very step that a study has of that rate."""
        name, config = self.name(rate), {**self.train.config, "learning_rate": rate}
        if rung < len(self.rungs) - 1:
            steps = self.rungs[rung]
            name, config = (
                f"{name}-rung{steps}",
                config | {"run_steps": steps, "report_step": steps, "keep_state": True},
            )
        return replace(self.train, name=name, config=config, role="search")

    def validation(self, rate: float, rung: int) -> Step:
        training = self.training(rate, rung)
        return replace(self.validate, name=training.name, inputs={**self.validate.inputs, "adapter": training})

    def counts(self, rate: float, rung: int, ask: Ask) -> tuple[int, int]:
        """Right ones among its answers at a rung, and all; it is trained and answers first where that was not done.

        ``StepFailed`` where one of the two failed.
        """
        ask(self.training(rate, rung))
        counts = json.loads((ask(self.validation(rate, rung)) / VALIDATION).read_text())
        return counts["right"], counts["problems"]
