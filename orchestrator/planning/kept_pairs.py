"""Which pairs of trainings a large study's results list: those that a table, a figure or a sentence of them reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.planning.training_runs import TrainingRun, training_runs

if TYPE_CHECKING:
    from orchestrator.config.study import Study

ALL_BY_PLACE = 16  # trainings up to which every pair is listed, by layer and module too
ALL_OVERALL = 100  # trainings up to which every pair is listed over all modules


@dataclass(frozen=True)
class KeptPairs:
    """``beside``: the training that a pair listed by layer, projection, module or checkpoint has in it; None: every
    pair is. ``overall``: the pairs of trainings listed over all modules; None: every pair."""

    trainings: int
    beside: str | None
    overall: tuple[tuple[str, str], ...] | None

    def settings(self) -> dict[str, Any]:
        """What a step that lists pairs has in its key: nothing where all pairs are listed."""
        settings: dict[str, Any] = {}
        if self.beside is not None:
            settings["beside"] = self.beside
        if self.overall is not None:
            settings["pairs"] = [list(pair) for pair in self.overall]
        return settings


def kept_pairs(study: Study) -> KeptPairs:
    """The pairs that the results of ``study`` list.

    Up to ``ALL_BY_PLACE`` trainings: every pair. Above: by layer, projection, module and checkpoint only the pairs with
    the reference (of features also those with base). Above ``ALL_OVERALL`` also over all modules, and in tests of
    accuracy, only these and, for each factor (method, learning rate, either seed, each setting that is varied), every
    training beside the first that differs from it in that factor alone; of methods the reference's is the first. So
    their number grows as that of the trainings does. The Gram of all updates is whole in any case, and with it every
    pair's cosine.
    """
    runs, reference = training_runs(study), study.reference
    beside = reference if len(runs) > ALL_BY_PLACE else None
    overall = _read(runs, reference) if len(runs) > ALL_OVERALL else None
    return KeptPairs(len(runs), beside, overall)


def _read(runs: Sequence[TrainingRun], reference: str) -> tuple[tuple[str, str], ...]:
    """Every training beside the reference, and beside the first that differs from it in one factor alone, in order."""
    place = {run.name: i for i, run in enumerate(runs)}
    every = sorted({key for run in runs for key in run.varied})
    levels = {run.name: [repr(level) for level in _levels(run, every)] for run in runs}
    found = {(reference, name) for name in place if name != reference and reference in place}
    for factor in range(4 + len(every)):
        first: dict[tuple[str, ...], list[str]] = {}
        for run in sorted(runs, key=lambda run: run.method != reference):
            own = levels[run.name]
            known = first.setdefault((*own[:factor], *own[factor + 1 :]), [])
            found |= {(name, run.name) for name in known[:1]}
            known.append(run.name)
    ordered = {tuple(sorted(pair, key=place.__getitem__)) for pair in found}
    return tuple(sorted(ordered, key=lambda pair: (place[pair[0]], place[pair[1]])))  # type: ignore[arg-type]


def _levels(run: TrainingRun, varied: Sequence[str]) -> list[Any]:
    own = [run.method, run.learning_rate, run.init_seed, run.order_seed]
    return [*own, *(run.varied.get(key, "own") for key in varied)]
