"""Rollouts sampled by the study's engine, from its base or from another model as teacher."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evals.engines import HOTTEST, Completion, Sampling
from evals.tasks import Problem
from execution import durable
from execution.fingerprint import key
from execution.step import RunsAs, Step, StepKind
from orchestrator.bases import Base
from orchestrator.planning import cost
from orchestrator.rollouts.sources.asked import AskedRollouts, instruction_of, told_golds, verified
from orchestrator.rollouts.sources.source import Found

if TYPE_CHECKING:
    from execution.context import Context
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from orchestrator.prompts.prompter import Prompter


class SampledRollouts(AskedRollouts):
    """Completions sampled by the study's engine."""

    source: Literal["vllm"]
    model: Literal["base"] | Base = "base"
    temperature: Annotated[float, Field(gt=0, le=HOTTEST)] = 1.0
    runs_as: ClassVar[RunsAs] = "engine"

    @property
    def engine_tokens(self) -> int:
        return self.max_tokens

    @property
    def teacher(self) -> Base | None:
        return None if self.model == "base" else self.model

    @property
    def answered_by(self) -> str:
        return "the base" if self.teacher is None else self.teacher.name

    def sampled_from(self, base: Base) -> Base:
        return self.teacher or base

    def shaped(self) -> SampledRollouts:
        return self.model_copy(update={"model": self.teacher.shaped()}) if self.teacher else self

    def step(self, kind: StepKind, planned: Planned) -> Step:
        from orchestrator.runtime.serving import engine_config, engine_runtime

        config = self.asked_config(planned, without={"model"})
        config["engine"] = engine_config(planned.study, planned.resolved)
        runtime = self.asked_runtime(planned) | {"engine": engine_runtime(planned.study, self.teacher is None)}
        inputs = {"base": planned.first("base"), "model": planned.of("base")[-1]}
        return Step(kind, "sampled", config, inputs, runtime)

    def seconds(self, study: Study) -> float:
        """Estimated seconds of sampling, 0 if the model's shape is not known."""
        shape = self.sampled_from(study.base).shape
        if shape is None:
            return 0.0
        return cost.served_seconds(shape, self.problem_count() * self.samples * self.max_tokens * cost.TOKENS_A_ROW)

    @classmethod
    def collect(cls, context: Context, prompter: Prompter) -> Found:
        """K completions per problem from the model that the study's engine serves."""
        from orchestrator.evaluation.problems import loaded
        from orchestrator.prompts.prompter import Prompter
        from orchestrator.runtime.serving import engine_placement
        from orchestrator.steps.base import NOTE, model_folder

        config = context.config
        problems, left_out = found = loaded(config["problems"], context.runtime["sources"][0])
        context.progress(found.told() or f"{len(problems)} problems")
        model = model_folder(context.inputs["model"])
        engine_settings = config["engine"] | engine_placement(context)
        alone = context.inputs["model"] == context.inputs["base"]
        own = {} if alone else {"template": None}  # the study's template is for the base
        teacher_prompter = Prompter(model, config["prompt"] | own)
        completions = _shards(context, teacher_prompter, engine_settings, model, problems, instruction_of(config))
        teacher = json.loads((context.inputs["model"] / NOTE).read_text())["name"]
        of = [(p, c) for p, samples in zip(problems, completions, strict=True) for c in samples]
        same_format = teacher_prompter.writes_as(prompter)
        texts = [(p, c.text if same_format else begun(teacher_prompter, c.text), c.finish == "stop") for p, c in of]
        rows = verified(context, texts, teacher, teacher_prompter.opening if same_format else "")
        if same_format:  # keep the sampled tokens, which tokenising the text may not reproduce
            rows = [row | {"completion_ids": list(c.token_ids)} for row, (_, c) in zip(rows, of, strict=True)]
        return Found(rows, {"asked": instruction_of(config)} | told_golds(left_out), Counter())


def begun(teacher: Prompter, text: str) -> str:
    """A completion with the opening reasoning tag of its teacher's prompt, which another base's prompt may lack."""
    return teacher.opening + text if text.strip() else text


def _shards(
    context: Context,
    prompter: Prompter,
    engine_settings: dict[str, Any],
    model: Path,
    problems: list[Problem],
    asked: str,
) -> list[list[Completion]]:
    """Completions by shards; finished shards are read back, so that a killed step resumes."""
    config, size = context.config, context.config["shard"]
    completions: list[list[Completion]] = []
    for first in range(0, len(problems), size):
        shard = problems[first : first + size]
        path = context.work / f"shard-{first}-{key([p.id for p in shard])}.json"
        kept = durable.recall(path)
        if kept is None:
            context.progress(f"{first}/{len(problems)} problems sampled")
            sampling = Sampling(
                n=config["samples"],
                temperature=config["temperature"],
                top_p=config["top_p"],
                max_tokens=config["max_tokens"],
                seed=config["seed"] + first,
                stop=(prompter.turn.end_id,),
            )
            prompts = [prompter.prompt_ids(p.problem, asked) for p in shard]
            answers = context.resources(engine_settings, model).generate(prompts, sampling, None)
            kept = durable.keep(
                path, {"answers": [[[list(c.token_ids), c.text, c.finish] for c in row] for row in answers]}
            )
            context.keep()
        completions += [[Completion(tuple(ids), text, finish) for ids, text, finish in row] for row in kept["answers"]]
    return completions
