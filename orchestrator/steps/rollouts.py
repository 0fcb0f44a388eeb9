"""The rollouts step: completions of problems from a file, a dataset, a served model or an API, graded and frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execution.context import Context
from execution.step import RunsAs, Step, StepKind
from orchestrator.bases.base import Shape

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

STATISTICS = "statistics.json"


def plan(planned: Planned) -> list[Step]:
    return [planned.study.rollouts.step(KIND, planned)]


def run(context: Context) -> None:
    """Write ``rollouts.parquet`` (one row per completion) and ``statistics.json``."""
    from orchestrator.rollouts.build import build

    build(context)


def runs_as(step: Step) -> RunsAs:
    return "engine" if "engine" in step.config else "task"


def seconds(study: Study, shape: Shape, step: Step) -> float:
    return study.rollouts.seconds(study)


KIND = StepKind("rollouts", version=3, plan=plan, run=run, runs_as=runs_as, seconds=seconds)
