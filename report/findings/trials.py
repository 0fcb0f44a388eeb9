"""What sentences on accuracy are held to: every model that answered, and every paired test between two of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from results import Results
from results.evaluation import Task

LEVEL = 0.05  # of p, Holm-adjusted over all pairs of a task


@dataclass(frozen=True)
class Tested:
    """Two models on one task. ``difference``: the second's accuracy less the first's; ``p`` is Holm-adjusted."""

    difference: float
    p: float

    @property
    def shown(self) -> bool:
        return self.p < LEVEL and self.difference != 0


def tasks(results: Results) -> list[Task]:
    """The tasks that were evaluated, with the models and pairs that the canary does not speak against."""
    if results.evaluation is None or not all(row.passed for row in results.evaluation.controls or ()):
        return []
    failed = {row.name for row in results.evaluation.canary or () if not row.passed}
    return [
        Task(
            **{name: getattr(task, name) for name in task.model_fields_set}
            | {
                "models": [score for score in task.models if score.name not in failed],
                "pairs": [pair for pair in task.pairs if failed.isdisjoint((pair.a, pair.b))],
            }
        )
        for task in results.tasks
    ]


def accuracies(task: Task) -> dict[str, float]:
    """The models that answered a task, with their accuracies."""
    return {score.name: score.accuracy for score in task.models}


def tested(task: Task, first: Iterable[str], second: Iterable[str]) -> list[Tested]:
    """Every tested pair of a model of ``first`` with one of ``second``, of which none is in both."""
    pairs = [(a, task.pair(a, b)) for a, b in product(first, second)]
    return [Tested(pair.difference if pair.a == a else -pair.difference, pair.p_holm) for a, pair in pairs if pair]
