"""The evaluate step: every task's problems (or a part of them) answered by one model and graded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execution.context import Context
from execution.step import RunsAs, Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.runtime.serving import engine_config, engine_runtime
from orchestrator.steps.train import each_model

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

VERDICTS, CANARY = "verdicts.parquet", "canary.json"  # here, so that a reader of them imports no engine


def plan(planned: Planned) -> list[Step]:
    study, spec = planned.study, planned.study.evaluation
    config = {
        "engine": engine_config(study, planned.resolved),
        "sampling": {task.known_as: spec.sampling(task) for task in spec.tasks},
        "shard": spec.shard,
        "parts": spec.parts,
        "canary": spec.canary.model_dump(),
        "targets": study.adapter.targets,
    }
    # The task of each evaluated task's name, for its grader; it is part of the problems step's key already.
    runtime = {"engine": engine_runtime(study, adapters=True), "tasks": {t.known_as: t.task for t in spec.tasks}}
    common = {"base": planned.first("base"), "problems": planned.first("problems")}
    return [
        Step(KIND, part_name(model, part, spec.parts), config | {"part": part}, inputs, runtime, role=model)
        for model, inputs in each_model(planned, common).items()
        for part in range(spec.parts)
    ]


def part_name(model: str, part: int, parts: int) -> str:
    """The name of the step that answers part ``part`` of ``parts`` of a model's problems."""
    return model if parts == 1 else f"{model}-part{part + 1}of{parts}"


def run(context: Context) -> None:
    """Write ``verdicts.parquet`` and ``canary.json``."""
    from orchestrator.evaluation.answer import answer

    answer(context)


def runs_as(step: Step) -> RunsAs:
    return "engine"


def seconds(study: Study, shape: Shape, step: Step) -> float:
    return cost.evaluation_seconds(study, shape) / step.config["parts"] / study.engine.tensor_parallel


KIND = StepKind("evaluate", version=3, plan=plan, run=run, runs_as=runs_as, seconds=seconds)
