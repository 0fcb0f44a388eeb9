"""Which trainings have a copy at the reference's norm: pure, from the study alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.training_runs import TrainingRun

SUFFIX = "-norm"  # of a copy's name


@dataclass(frozen=True)
class ScaledCopy:
    """The update of the training ``of`` times a number, so that its norm is that of the training ``to``."""

    name: str
    of: str
    to: str


def scaled_copies(study: Study, runs: Sequence[TrainingRun]) -> list[ScaledCopy]:
    """A copy of every training of another method than the reference, from the reference's initial A and with its
    settings, at the method's own rate and at those at which the reference was trained too, in all orders of rows.

    None where the study does not ask for them. ``ValueError`` where there is nothing to scale, or a training has a
    copy's name. ``runs`` are all trainings of the study.
    """
    if not study.norm_matched:
        return []
    from results.headline import reference_among  # a study without copies is planned without the results' types

    reference = reference_among(list(study.methods))
    alike = [run for run in runs if run.init_seed == study.seeds.init and not run.varied]
    shared = {run.learning_rate for run in alike if run.method == reference}
    copies = [
        ScaledCopy(f"{run.name}{SUFFIX}", run.name, reference)
        for run in alike
        if run.method != reference and run.learning_rate in {*shared, study.learning_rate(run.method)}
    ]
    if not copies:
        raise ValueError(
            f"norm_matched: no method beside {reference} has an update to scale to its norm: name another method, or "
            "leave norm_matched out"
        )
    taken = sorted({copy.name for copy in copies} & {run.name for run in runs})
    if taken:
        raise ValueError(
            f"norm_matched: a training has the name of the scaled copy {taken[0]}: rename its method or its level, or "
            "leave norm_matched out"
        )
    return copies
