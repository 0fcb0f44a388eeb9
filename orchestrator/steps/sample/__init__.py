"""The sample step: completions of one teacher to a part of the problems, on an engine of its own.

Planned where rollouts come from several models or in several parts; the step rollouts then reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from execution.context import Context
from execution.step import RunsAs, Step, StepKind
from orchestrator.bases.base import Shape

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned


def plan(planned: Planned) -> list[Step]:
    return planned.study.rollouts.sample_steps(KIND, planned)


def run(context: Context) -> None:
    """Write ``completions.parquet``, one row per completion: ``problem`` (its number), ``token_ids``, ``text``,
    ``finish``."""
    from orchestrator.rollouts.sampling import sample

    sample(context)


def runs_as(step: Step) -> RunsAs:
    return "engine"


def seconds(study: Study, shape: Shape, step: Step) -> float:
    return study.rollouts.sample_seconds(study, step)


KIND = StepKind("sample", version=1, plan=plan, run=run, runs_as=runs_as, seconds=seconds)
