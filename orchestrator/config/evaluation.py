"""Settings of the evaluation: tasks and their problems, sampling, and the canary."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from evals.engines import HOTTEST
from evals.tasks import TASKS
from execution.settings import Count, Positive, Seed
from orchestrator.config.values import Free, Frozen, Several

Temperature = Annotated[float, Field(ge=0, le=HOTTEST)]
TopP = Annotated[float, Field(gt=0, le=1)]


KINDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


class Problems(Frozen):
    """A set of problems: the task, its source, a fixed draw, and the task's own settings."""

    task: str
    source: str | None = None
    split: str = "test"
    draw: Count | None = None
    seed: Seed = 0
    instruction: str | None = None  # the user's turn with {problem} in it; None: the task's own
    settings: dict[str, Free] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _source(cls, raw: Any) -> Any:
        """Fill in the task's default source, which is part of the study's identity."""
        task = raw.get("task") if isinstance(raw, dict) else None
        if isinstance(task, str) and task in TASKS and raw.get("source") is None:
            return {**raw, "source": TASKS[task].hub}
        return raw

    @model_validator(mode="after")
    def _known(self) -> Problems:
        if self.task not in TASKS:
            raise ValueError(f"unknown task {self.task!r}; known tasks: {', '.join(TASKS)}")
        if self.source is not None and TASKS[self.task].hub is None:
            raise ValueError(f"the task {self.task} generates its own problems: remove source")
        if self.source == "":
            raise ValueError("source is empty: name a file, a folder or a hub name")
        known = inspect.signature(TASKS[self.task].load).parameters
        for name, value in self.settings.items():
            kind = type(known[name].default) if name in known else None  # unknown ones are refused at loading
            if kind in KINDS and type(value) not in (kind, int if kind is float else kind):
                raise ValueError(f"settings.{name} of the task {self.task} must be {KINDS[kind]}, not {value!r}")
        holds_problem(self.instruction)
        return self


def holds_problem(instruction: str | None) -> None:
    """``ValueError`` for an instruction without ``{problem}``."""
    if instruction is not None and "{problem}" not in instruction:
        raise ValueError("instruction must contain {problem}")


class Shots(Frozen):
    """Few-shot examples: solved problems of the same task, given before each question as earlier turns."""

    count: Annotated[int, Field(ge=1, le=64)]
    split: str = "train"
    source: str | None = None  # None: the task's own
    seed: Seed = 0


class EvaluatedTask(Problems):
    """A task to evaluate; unset fields default to those of ``Evaluation``.

    ``name`` labels its verdicts if one task is evaluated twice: AIME of two years, GSM8K with and without shots.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=40)] | None = None
    shots: Shots | None = None
    samples: Count | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: Count | None = None

    @property
    def known_as(self) -> str:
        return self.name or self.task


class Canary(Frozen):
    """The check before each evaluation: the engine's top log-probs against Transformers + PEFT, base and adapters."""

    prompts: Count = 8
    top: Count = 20
    tolerance: Positive | None = None  # nats; None: by the engine's precision (evals/canary.py)


class Evaluation(Frozen):
    """Greedy with one sample per problem by default; with a temperature, sampled with ``seed``."""

    tasks: Several[EvaluatedTask] = Field(min_length=1)
    max_tokens: Count = 1024
    samples: Count = 1
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    seed: Seed = 0
    shard: Count = 500  # problems per engine call; the unit of resume
    parts: Annotated[int, Field(ge=1, le=64)] = 1  # of a model's evaluation, each on a GPU of its own
    contamination: Literal["refuse", "exclude"] = "refuse"
    canary: Canary = Canary()

    @model_validator(mode="after")
    def _once(self) -> Evaluation:
        names = [task.known_as for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"evaluation.tasks: {name} appears twice: give one of them another name")
        for i, task in enumerate(self.tasks):
            sampling = self.sampling(task)
            if sampling["samples"] > 1 and sampling["temperature"] == 0:
                raise ValueError(
                    f"evaluation.tasks.{i}: {sampling['samples']} samples at temperature 0 are equal: set a temperature"
                )
        return self

    def sampling(self, task: EvaluatedTask) -> dict[str, Any]:
        """A task's sampling settings: samples, temperature, top_p, max_tokens, seed (0 if greedy)."""
        names = ("samples", "temperature", "top_p", "max_tokens")
        own = {name: getattr(task, name) for name in names}
        drawn = {name: getattr(self, name) if own[name] is None else own[name] for name in names}
        return drawn | ({"seed": self.seed} if drawn["temperature"] else {"top_p": 1.0, "seed": 0})
