"""Rollouts sampled by the study's engines, from its base, another model as teacher, or several.

One model in one part is sampled by the step that collects the rollouts. Of several models, or in several parts, each
part is a step of its own (``steps/sample``), so that as many engines as there are GPUs sample at once.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evals.engines import HOTTEST
from execution.step import Step, StepKind
from methods import METHODS
from orchestrator.bases import Base
from orchestrator.config.values import Free, Several
from orchestrator.planning import cost
from orchestrator.rollouts.sources.asked import AskedRollouts, instruction_of, told_golds, verified
from orchestrator.rollouts.sources.source import Found
from orchestrator.rollouts.teachers import Teacher, engine_of

if TYPE_CHECKING:
    from execution.context import Context
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from orchestrator.prompts.prompter import Prompter
    from orchestrator.runtime.served_models import Served

SAMPLING = {
    "model",
    "engine",
    "models",
    "parts",
}  # settings of the steps that sample, where these are steps of their own


class SampledRollouts(AskedRollouts):
    """Completions sampled by the study's engines."""

    source: Literal["vllm"]
    model: Literal["base"] | Base = "base"
    engine: dict[str, Free] = Field(default_factory=dict, exclude_if=lambda own: not own)  # where the model's differs
    models: Annotated[Several[Teacher], Field(exclude_if=lambda models: not models)] = ()  # in place of model
    parts: Annotated[int, Field(ge=1, le=64, exclude_if=lambda parts: parts == 1)] = 1  # of a model’s shards
    temperature: Annotated[float, Field(gt=0, le=HOTTEST)] = 1.0

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if self.models and (self.model != "base" or self.engine):
            raise ValueError("models: takes the place of rollouts.model and rollouts.engine: leave these out")
        names = [teacher.called for teacher in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"models: {name} stands there twice, and rows could not tell which wrote them")
        return self

    @property
    def several(self) -> list[Teacher]:
        """Every model that answers, in the study's order."""
        return list(self.models) or [Teacher(model=self.model, engine=self.engine)]

    @property
    def apart(self) -> bool:
        """Whether the parts are steps of their own."""
        return bool(self.models) or self.parts > 1

    @property
    def engine_tokens(self) -> int:
        return self.max_tokens

    @property
    def samples_a_problem(self) -> int:
        return sum(teacher.samples or self.samples for teacher in self.several)

    @property
    def teachers(self) -> list[Base]:
        return [teacher.own for teacher in self.several if teacher.own is not None]

    @property
    def answered_by(self) -> str:
        return self.several[0].called

    @property
    def asked_for(self) -> str:
        if not self.models:
            return super().asked_for
        return ", ".join(f"{t.samples or self.samples} completions each from {t.called}" for t in self.models)

    def served(self, study: Study) -> list[Served]:
        from orchestrator.runtime.served_models import Served

        found = []
        for i, teacher in enumerate(self.several):
            where = f"rollouts.models.{i}" if self.models else "rollouts"
            engine_at = f"{where}.engine" if teacher.engine else "engine"
            engine = engine_of(study.engine, teacher.engine)
            found.append(Served(engine_at, f"{where}.model", teacher.own or study.base, engine))
        return found

    def check(self, study: Study) -> None:
        for i, teacher in enumerate(self.several):
            where = f"rollouts.models.{i}.engine" if self.models else "rollouts.engine"
            if self.models and teacher.own is not None and teacher.own.name == study.base.name:
                raise ValueError(f"rollouts.models.{i}: {study.base.name} is the base's name; write model: base")
            try:
                engine = engine_of(study.engine, teacher.engine)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            if engine.max_model_len <= study.prompt.max_prompt_tokens:
                raise ValueError(f"{where}.max_model_len must exceed prompt.max_prompt_tokens, or no answer fits")
        paired = [name for name in study.methods if METHODS[study.objective(name)].view == "pairs"]
        within = self.table.pair_rule == "same_teacher" and max(t.samples or self.samples for t in self.several) < 2
        if paired and within:
            raise ValueError(f"methods.{paired[0]} needs pairs of one teacher: rollouts.samples must be 2 or more")
        shards = -(-self.problems.draw // self.shard) if self.problems.draw else None
        if shards is not None and self.parts > shards:
            raise ValueError(
                f"rollouts.parts: {self.parts} parts of {shards} shards ({self.problems.draw} problems by "
                f"rollouts.shard={self.shard}) leave some empty: set rollouts.parts={shards}, or a smaller shard"
            )

    def shaped(self) -> SampledRollouts:
        if not self.models:
            return self.model_copy(update={"model": self.model.shaped()}) if self.model != "base" else self
        models = tuple(t.model_copy(update={"model": t.own.shaped()}) if t.own else t for t in self.models)
        return self.model_copy(update={"models": models})

    def step(self, kind: StepKind, planned: Planned) -> Step:
        config = self.asked_config(planned, without=SAMPLING)
        base = planned.first("base")
        if not self.apart:
            inputs = {"base": base, "model": _model_step(self.several[0], planned)}
            config["engine"], engine = self._engine(self.several[0], planned)
            return Step(kind, "sampled", config, inputs, self.asked_runtime(planned) | engine)
        inputs = {"base": base}
        answers = iter(planned.of("sample"))
        for i, teacher in enumerate(self.several):
            inputs[f"model-{i}"] = _model_step(teacher, planned)
            inputs |= {f"answers-{i}-{part}": next(answers) for part in range(self.parts)}
        return Step(kind, "sampled", config, inputs, self.asked_runtime(planned))

    def sample_steps(self, kind: StepKind, planned: Planned) -> list[Step]:
        from orchestrator.steps.evaluate import part_name

        steps = []
        for teacher in self.several if self.apart else ():
            model = _model_step(teacher, planned)
            config = self.asked_config(planned, without=SAMPLING) | {"samples": teacher.samples or self.samples}
            del config["table"]
            config["prompt"] |= {} if model == planned.first("base") else {"template": None}  # it is for the base
            config["engine"], engine = self._engine(teacher, planned)
            for part in range(self.parts):
                own = config | {"parts": self.parts, "part": part}
                name = part_name(model.name, part, self.parts)
                steps.append(Step(kind, name, own, {"model": model}, self.asked_runtime(planned) | engine))
        return steps

    @staticmethod
    def _engine(teacher: Teacher, planned: Planned) -> tuple[dict[str, Any], dict[str, Any]]:
        """The engine's settings for a step's key, and its runtime inputs.

        Without settings of its own, an engine of the base is opened as the evaluations open it, which then use it.
        """
        from orchestrator.runtime.serving import engine_config, engine_runtime

        settings = engine_of(planned.study.engine, teacher.engine) if teacher.engine else None
        runtime = engine_runtime(planned.study, adapters=teacher.own is None and not teacher.engine)
        return engine_config(planned.study, planned.resolved, settings), {"engine": runtime}

    def seconds(self, study: Study) -> float:
        """Estimated seconds of sampling by the step that collects the rollouts; 0 if its model's shape is not known."""
        return 0.0 if self.apart else self._seconds(study, 0)

    def sample_seconds(self, study: Study, step: Step) -> float:
        number = next(i for i, t in enumerate(self.several) if step.inputs["model"].config["name"] == _name(t, study))
        return self._seconds(study, number) / self.parts

    def _seconds(self, study: Study, number: int) -> float:
        """Of all parts of one model, on the GPUs of one engine."""
        shape, teacher = self.served(study)[number].base.shape, self.several[number]
        if shape is None:
            return 0.0
        tokens = self.problem_count() * (teacher.samples or self.samples) * self.max_tokens * cost.TOKENS_A_ROW
        return cost.served_seconds(shape, tokens) / engine_of(study.engine, teacher.engine).tensor_parallel

    @classmethod
    def collect(cls, context: Context, prompter: Prompter) -> Found:
        """The completions of every model, problem by problem, in the study's order of models."""
        from orchestrator.evaluation.problems import loaded
        from orchestrator.rollouts.sampling import answers_of

        config = context.config
        problems, left_out = found = loaded(config["problems"], context.runtime["sources"][0])
        context.progress(found.told() or f"{len(problems)} problems")
        if not problems:
            raise ValueError("rollouts.problems: no problem is left, since nothing can check any gold answer")
        rows: list[list[dict[str, Any]]] = [[] for _ in problems]
        for name, own, completions in answers_of(context, problems):
            of = [(p, c) for p, samples in zip(problems, completions, strict=True) for c in samples]
            same_format = own.writes_as(prompter)
            if not same_format:
                context.progress(f"{name} has another vocabulary or template than the base: its texts are tokenized")
            texts = [(p, c.text if same_format else begun(own, c.text), c.finish == "stop") for p, c in of]
            graded = verified(context, texts, name, own.opening if same_format else "")
            if same_format:  # keep the sampled tokens, which tokenising the text may not reproduce
                graded = [row | {"completion_ids": list(c.token_ids)} for row, (_, c) in zip(graded, of, strict=True)]
            samples = len(graded) // len(problems)
            for i, row in enumerate(graded):
                rows[i // samples].append(row)
        told = {"asked": instruction_of(config)} | told_golds(left_out)
        return Found([row for group in rows for row in group], told, Counter())


def _model_step(teacher: Teacher, planned: Planned) -> Step:
    """The step that prepares a teacher's model: the base's own if it is the same model."""
    from orchestrator.steps.base import prepared

    return planned.first("base") if teacher.own is None else prepared(teacher.own, planned)


def _name(teacher: Teacher, study: Study) -> str:
    return (teacher.own or study.base).name


def begun(teacher: Prompter, text: str) -> str:
    """A completion with the opening reasoning tag of its teacher's prompt, which another base's prompt may lack."""
    return teacher.opening + text if text.strip() else text
