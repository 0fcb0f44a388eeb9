"""In what two methods' trainings agree: learning rate, steps, rows, tokens, problems; and the pair that agrees in one.

Computed from what the trainings saw, and for steps and rows from their settings too, before anything has run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from orchestrator.planning.cost import rows_a_unit
from orchestrator.planning.training_runs import TrainingRun

Match = Literal["as_published", "learning_rate", "best_rate", "norm", "steps", "rows", "tokens", "problems"]
AMOUNTS: tuple[Match, ...] = ("steps", "rows", "tokens", "problems")
PLANNED: tuple[Match, ...] = ("steps", "rows")  # those that the settings tell
NEAR = 0.02  # of the larger one: two amounts within it agree
# Settings that change what a method is trained on, and nothing else: with them it is still the method itself.
FREE = frozenset(f"training.{name}" for name in ("steps", "run_steps", "report_step", "batch_size", "examples"))


@dataclass(frozen=True)
class Family:
    """Trainings that differ in the order of their rows alone, with the means of their ``amounts`` up to report_step.

    ``varied``: keys of the settings in which they differ from their ``method``. ``start``: initial seed and random
    factor.
    """

    method: str
    varied: frozenset[str]
    learning_rate: float
    start: tuple[int, str]
    names: tuple[str, ...]
    amounts: Mapping[str, float]


def agree(one: float | None, two: float | None) -> bool:
    """Whether two amounts are within :data:`NEAR` of each other."""
    return one is not None and two is not None and abs(one - two) <= NEAR * max(one, two)


def equal(one: Family, two: Family) -> list[Match]:
    """In what two families agree, in the order of the kinds of matches."""
    rate: list[Match] = ["learning_rate"] if one.learning_rate == two.learning_rate else []
    return [*rate, *(name for name in AMOUNTS if agree(one.amounts.get(name), two.amounts.get(name)))]


def nearest(
    families: Sequence[Family], methods: tuple[str, str], rate: float, start: tuple[int, str], amount: Match
) -> tuple[Family, Family] | None:
    """The families of two methods at one ``rate`` that agree in ``amount``; None where no two do.

    Of several the two that differ in the fewest settings from their methods, then the first in the order given.
    """
    one, two = (
        [
            of
            for of in families
            if (of.method, of.learning_rate, of.start) == (method, rate, start) and of.varied <= FREE
        ]
        for method in methods
    )
    found = [pair for pair in product(one, two) if agree(*(of.amounts.get(amount) for of in pair))]
    return min(found, key=lambda pair: len(pair[0].varied) + len(pair[1].varied), default=None)


def unmatched(wanted: Collection[Match], runs: Iterable[TrainingRun], reference: str) -> str | None:
    """What is wrong with the ``wanted`` kinds of matches, in a line; None where trainings of ``runs`` give them all.

    Tokens and problems are known only when the rollouts are; a norm and the best rate when the trainings are done.
    """
    planned = _planned(runs)
    own = next(family for family in planned if family.method == reference and not family.varied)
    for method in dict.fromkeys(family.method for family in planned if family.method != reference):
        of = [family for family in planned if family.method == method and family.start == own.start]
        rates = dict.fromkeys(f.learning_rate for f in of)
        theirs = {f.learning_rate for f in planned if (f.method, f.start) == (reference, own.start) and not f.varied}
        if "learning_rate" in wanted and not any(not f.varied and f.learning_rate in theirs for f in of):
            return (
                f"learning_rate: {method} has no training at a rate of {reference}: add one of its rates to "
                "factorial.learning_rate"
            )
        for amount in PLANNED:
            pairs = (nearest(planned, (method, reference), rate, own.start, amount) for rate in rates)
            if amount in wanted and not any(pairs):
                seen = ", ".join(f"{f.method} {f.amounts[amount]:g} at {f.learning_rate:g}" for f in (of[0], own))
                keys = "training.steps" if amount == "steps" else "training.batch_size or training.steps"
                return (
                    f"{amount}: no training of {method} has as many as one of {reference} at one learning rate "
                    f"({seen}): vary {keys} in the factorial, at a common learning_rate"
                )
    return None


def _planned(runs: Iterable[TrainingRun]) -> list[Family]:
    """The families of the trainings of a study, with what the settings tell of their amounts."""
    found: dict[tuple[object, ...], Family] = {}
    for run in runs:
        steps, units = run.training.reported_step, run.training.batch_size
        rows = steps * units * rows_a_unit(run.objective)
        start = run.init_seed, run.adapter.start
        family = Family(run.method, frozenset(run.varied), run.learning_rate, start, (run.name,),
                        {"steps": steps, "rows": rows})  # fmt: skip
        found.setdefault((run.method, tuple(run.varied.items()), run.learning_rate, start), family)
    return list(found.values())
