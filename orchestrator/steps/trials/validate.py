"""The validate step: the problems that are held out of the rollouts, answered greedily by one model and graded.

No canary: the trainings that a search chooses are evaluated like all others, on the same engine, with one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from execution.context import Context
from execution.step import RunsAs, Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.runtime.serving import engine_config, engine_runtime

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

SPLIT = "heldout"  # of the rollouts' table, and the name under which its problems are answered
VALIDATION = "validation.json"


def plan(planned: Planned) -> list[Step]:
    """None: the trials of a search ask for them."""
    return []


def template(planned: Planned) -> Step:
    """The step without the adapter that it answers with."""
    study, rollouts = planned.study, planned.first("rollouts")
    greedy = {"samples": 1, "temperature": 0.0, "top_p": 1.0, "seed": 0, "max_tokens": study.evaluation.max_tokens}
    config = {
        "engine": engine_config(study, planned.resolved),
        "sampling": {SPLIT: greedy},
        "shard": study.evaluation.shard,
        "part": 0,
        "parts": 1,
    }
    # What the rollouts' step knows of their prompts and their grader; it is part of that step's key.
    runtime = {"engine": engine_runtime(study, adapters=True), "rollouts": dict(rollouts.config)}
    return Step(KIND, "", config, {"base": planned.first("base"), "rollouts": rollouts}, runtime, role="search")


def run(context: Context) -> None:
    """Write ``verdicts.parquet`` and ``validation.json``."""
    from orchestrator.evaluation.validate import validate

    validate(context)


def runs_as(step: Step) -> RunsAs:
    return "engine"


def seconds(study: Study, shape: Shape, step: Step) -> float:
    problems = (study.rollouts.problem_count() or cost.OTHER_PROBLEMS) * study.rollouts.table.heldout
    tokens = problems * study.evaluation.max_tokens * cost.TOKENS_A_ROW
    return cost.served_seconds(shape, tokens) / study.engine.tensor_parallel


KIND = StepKind("validate", version=1, plan=plan, run=run, runs_as=runs_as, seconds=seconds)
