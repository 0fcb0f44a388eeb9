"""What sentences on accuracy are held to: every model that answered, and every paired test between two of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

SIGN_FLIP = "sign flip"  # the test of a pair with several samples a problem; McNemar's with one
LEVEL = 0.05  # of p, Holm-adjusted over all pairs of a task


@dataclass(frozen=True)
class Tested:
    """Two models on one task. ``difference``: the second's accuracy less the first's; ``p`` is Holm-adjusted."""

    difference: float
    p: float

    @property
    def shown(self) -> bool:
        return self.p < LEVEL and self.difference != 0


def tasks(results: Mapping) -> Sequence[Mapping]:
    """The tasks that were evaluated, with the models and pairs that the canary does not speak against."""
    evaluation = results.get("evaluation") or {}
    if any(row.get("passed") is False for row in evaluation.get("controls") or []):
        return []
    failed = {row.get("name") for row in evaluation.get("canary") or [] if row.get("passed") is False}
    return [_without(task, failed) for task in evaluation.get("tasks") or [] if task.get("task") is not None]


def _without(task: Mapping, names: Collection[str | None]) -> Mapping:
    models = [row for row in task.get("models") or [] if row.get("name") not in names]
    pairs = [row for row in task.get("pairs") or [] if row.get("a") not in names and row.get("b") not in names]
    return {**task, "models": models, "pairs": pairs}


def title(task: Mapping) -> str:
    return task.get("title") or str(task.get("task"))


def accuracies(task: Mapping) -> dict[str, float]:
    """The models that answered a task, with their accuracies."""
    rows = task.get("models") or []
    return {row["name"]: row["accuracy"] for row in rows if row.get("name") and row.get("accuracy") is not None}


def tested(task: Mapping, first: Iterable[str], second: Iterable[str]) -> list[Tested]:
    """Every tested pair of a model of ``first`` with another one of ``second``, no pair twice."""
    wanted = {frozenset((a, b)): (a, b) for a in first for b in second if a != b}
    found = []
    for row in task.get("pairs") or []:
        pair = wanted.get(frozenset((row.get("a"), row.get("b"))))
        if pair and row.get("p_holm") is not None and row.get("difference") is not None:
            sign = 1 if row.get("a") == pair[0] else -1
            found.append(Tested(sign * row["difference"], row["p_holm"]))
    return found


def by_several_samples(task: Mapping) -> bool:
    return any(row.get("test") == SIGN_FLIP for row in task.get("pairs") or [])
