"""Rollouts: completions of problems, from a file, a dataset, a served model or an API, verified and frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from execution.context import Context
from execution.step import RunsAs, Step, StepKind
from orchestrator.config.base import Shape
from orchestrator.config.rollouts import ApiRollouts, AskedRollouts, HubRollouts, SampledRollouts
from orchestrator.planning import cost
from orchestrator.steps.problems import is_commit, pinned, problems_config
from orchestrator.steps.serving import engine_config, engine_where

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

STATISTICS = "statistics.json"


def plan(planned: Planned) -> list[Step]:
    study, resolved, base = planned.study, planned.resolved, planned.first("base")
    spec = study.rollouts
    pairing: dict[str, Any] = {"table": {"pair_rule", "pairs"}}  # of the trainings, not of the table
    prompt = {"prompt": study.prompt.model_dump()}
    if not isinstance(spec, AskedRollouts):
        place = {"name", "revision"} if isinstance(spec, HubRollouts) else {"path"}
        config = spec.model_dump(exclude=dict.fromkeys(place, True) | pairing) | prompt
        if isinstance(spec, HubRollouts):
            content = config["content"] = resolved[f"hub:{spec.name}"]
            where = {"path": spec.name, "revision": content if is_commit(content) else None}
        else:
            config["content"] = resolved[f"file:{spec.path}"]
            where = {"path": spec.path, "revision": None}
        return [Step(KIND, spec.source, config, {"base": base}, where)]
    asked = {"problems": problems_config(spec.problems, resolved)} | prompt
    sources: dict[str, Any] = {"sources": [pinned(spec.problems.task, spec.problems.source, resolved)]}
    if isinstance(spec, ApiRollouts):
        how = {"key", "prices", "max_cost", "at_once", "retries", "timeout", "shard"}  # what decides no answer
        config = spec.model_dump(exclude=dict.fromkeys(how | {"problems"}, True) | pairing) | asked
        return [Step(KIND, "openai", config, {"base": base}, sources | spec.model_dump(include=how))]
    config = spec.model_dump(exclude={"model": True, "problems": True} | pairing) | asked
    config["engine"] = engine_config(study, resolved)
    where = sources | {"engine": engine_where(study, spec.model == "base")}
    return [Step(KIND, "sampled", config, {"base": base, "model": planned.of("base")[-1]}, where)]


def run(context: Context) -> None:
    """Writes ``rollouts.parquet`` (one row a completion) and ``statistics.json``."""
    from orchestrator.rollouts.build import build

    build(context)


def runs_as(step: Step) -> RunsAs:
    return "engine" if step.config["source"] == "vllm" else "task"


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Of sampling alone, and only where the teacher's shape is known."""
    spec, teacher = study.rollouts, cost.teacher_shape(study)
    if not isinstance(spec, SampledRollouts) or teacher is None:
        return 0.0
    tokens = cost.problem_count(spec.problems) * spec.samples * spec.max_tokens * cost.TOKENS_A_ROW
    return cost.served_seconds(teacher, tokens)


KIND = StepKind("rollouts", version=3, plan=plan, run=run, runs_as=runs_as, seconds=seconds)
