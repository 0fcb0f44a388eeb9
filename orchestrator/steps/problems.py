"""The problems step: draws the evaluation's problems once for all models; problems in the rollouts are refused or
excluded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from execution.context import Context
from execution.step import Step, StepKind
from orchestrator.config.evaluation import EvaluatedTask, Problems

if TYPE_CHECKING:
    from orchestrator.planning.plan import Planned

COMMIT = 40  # hex digits of a hub commit; a content hash has 64


def plan(planned: Planned) -> list[Step]:
    study, resolved = planned.study, planned.resolved
    config = {
        "tasks": [_task_config(t, resolved) for t in study.evaluation.tasks],
        "contamination": study.evaluation.contamination,
        "prompt": study.prompt.model_dump(),
    }
    runtime = {
        "sources": [pinned(t.task, t.source, resolved) for t in study.evaluation.tasks],
        "shots": [pinned(t.task, _shots_source(t), resolved) for t in study.evaluation.tasks],
        "max_model_len": study.engine.max_model_len,
    }
    inputs = {"base": planned.first("base"), "rollouts": planned.first("rollouts")}
    return [Step(KIND, "evaluation", config, inputs, runtime)]


def run(context: Context) -> None:
    """Write ``problems.json``."""
    from orchestrator.evaluation.problems import draw

    draw(context)


def problems_config(problems: Problems, resolved: Mapping[str, str]) -> dict[str, Any]:
    config = problems.model_dump(include=set(Problems.model_fields) - {"source"})
    config["content"] = resolved[f"task:{problems.task}:{problems.source}"]
    return config


def _task_config(task: EvaluatedTask, resolved: Mapping[str, str]) -> dict[str, Any]:
    """An evaluated task's problems, name and shots, without the sampling settings."""
    config = problems_config(task, resolved) | {"name": task.known_as, "shots": None}
    if task.shots:
        content = resolved[f"task:{task.task}:{_shots_source(task)}"]
        config["shots"] = task.shots.model_dump(exclude={"source"}) | {"content": content}
    return config


def _shots_source(task: EvaluatedTask) -> str | None:
    return task.shots.source if task.shots and task.shots.source is not None else task.source


def pinned(task: str, source: str | None, resolved: Mapping[str, str]) -> str | None:
    """The source for a task's loader: a path unchanged, a hub name with its commit."""
    commit = resolved[f"task:{task}:{source}"]
    return f"{source}@{commit}" if is_commit(commit) else source


def is_commit(identity: str) -> bool:
    """Whether it is a hub commit, not a content hash or another word."""
    return len(identity) == COMMIT


KIND = StepKind("problems", version=3, plan=plan, run=run)
