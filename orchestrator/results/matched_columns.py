"""What is known of a method's and the reference's trainings beside the directions of their updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from analysis.weights.replicas import families, runs
from orchestrator.planning.matches import Family
from orchestrator.steps.train import BASE
from results.function import Connectivity, Losses, Similarity
from results.matched import Both, Span
from results.scaled import CkaToBase
from results.trainings import Trained


def trained_families(trainings: Mapping[str, Trained]) -> list[Family]:
    """The trainings, by name and in order, as families with what they saw up to report_step."""
    found = families(runs(map(vars, trainings.values()), list(trainings)))
    return [_family([trainings[run.name] for run in of]) for of in found.values()]


def _family(of: Sequence[Trained]) -> Family:
    first = of[0]
    amounts = {
        "steps": [one.report_step for one in of],
        "rows": [one.rows_seen for one in of],
        "tokens": [one.tokens_seen for one in of],
        "problems": [one.distinct_problems for one in of],
    }
    return Family(
        method=first.method,
        varied=frozenset(first.varied or ()),
        learning_rate=first.learning_rate,
        start=(first.init_seed, first.start),
        names=tuple(one.name for one in of),
        amounts={name: float(np.mean(values)) for name, values in amounts.items()},
    )


@dataclass(frozen=True)
class Columns:
    """Each model's numbers by its name; what was not measured is empty."""

    trainings: Mapping[str, Trained]
    norms: Mapping[str, float]
    losses: Mapping[str, Losses]
    ckas: Mapping[str, float | None]  # to base, mean over layers
    connectivity: Connectivity | None

    def family(self, names: Sequence[str]) -> Family:
        """These trainings, which differ in order alone, as one family."""
        return _family([self.trainings[name] for name in names])

    def of(self, names: Sequence[str], others: Sequence[str]) -> dict[str, Any]:
        """The fields of a row of the trainings ``names`` beside the reference's ``others``."""

        def both(look_up: Callable[[str], float | None]) -> Both:
            return Both(its=mean(map(look_up, names)), reference=mean(map(look_up, others)))

        return {
            "norm": both(self.norms.get),
            "undone": both(lambda name: self.trainings[name].undone),
            "signal": both(lambda name: self.trainings[name].signal),
            "nll_right": both(lambda name: self.loss(name, "nll_right")),
            "margin": both(self._margin),
            "cka_to_base": both(self.ckas.get),
            "barrier": span(self._barriers(names, others)),
        }

    def loss(self, name: str, which: str) -> float | None:
        """One of a model's losses; None where it was not measured."""
        return getattr(self.losses[name], which) if name in self.losses else None

    def _margin(self, name: str) -> float | None:
        right, wrong = self.loss(name, "nll_right"), self.loss(name, "nll_wrong")
        return None if right is None or wrong is None else wrong - right

    def _barriers(self, names: Sequence[str], others: Sequence[str]) -> Iterable[float]:
        pairs = {frozenset(pair) for pair in product(names, others)}
        paths = self.connectivity.paths if self.connectivity else []
        return [p.barrier for p in paths if p.barrier is not None and frozenset((p.a, p.b)) in pairs]


def ckas_to_base(similarity: Similarity | None, scaled: Sequence[CkaToBase]) -> dict[str, float | None]:
    """Each model's CKA to base, mean over its layers without the embeddings; scaled copies by their own names."""
    values: dict[str, list[float | None]] = {}
    for row in similarity.hidden if similarity else ():
        if BASE in (row.a, row.b) and row.layer >= 0:
            values.setdefault(row.b if row.a == BASE else row.a, []).append(row.cka)
    for copy in scaled:
        if copy.layer >= 0:
            values.setdefault(copy.name, []).append(copy.cka)
    return {name: mean(of) for name, of in values.items()}


def span(values: Iterable[float]) -> Span | None:
    """Mean and ends of the values; None without one."""
    known = list(values)
    return Span(mean=float(np.mean(known)), low=min(known), high=max(known), pairs=len(known)) if known else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known; None without one."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
