"""The schema: a Study is data, frozen, and refuses keys it does not know.

What decides a result is here and goes into the steps' keys (``plan.py``). Where and how fast a study runs (GPUs,
slots, folders) is not: that is ``Placement``. Defaults are the vetted setting; the reference study's open choices
say so in their comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jinja2 import TemplateSyntaxError
from pydantic import Field, create_model, model_validator

from evals.engines.settings import EnginePlace, EngineSettings
from execution.settings import Count, Positive, Range, Seed
from methods import METHODS
from methods import check as check_method
from methods.config import LoraSettings, TrainingSettings
from orchestrator.bases import Base
from orchestrator.config.evaluation import Evaluation
from orchestrator.config.factorial import Cells
from orchestrator.config.values import Declared, Free, Frozen, Several
from orchestrator.planning.training_runs import training_runs
from orchestrator.prompts.templates import environment
from orchestrator.rollouts.sources import Rollouts
from orchestrator.steps import STEP_KINDS

NAME = r"[a-z][a-z0-9_]{0,40}"  # of a method in a study


class Prompt(Frozen):
    """How a problem becomes tokens, for rollouts, training and evaluation alike."""

    system: str | None = None
    template: str | None = None  # a chat template in Jinja; the tokenizer's own where unset
    thinking: bool | None = None  # given to templates that know enable_thinking; None leaves it unsaid
    max_prompt_tokens: Count = 1024
    max_answer_tokens: Count = 1024
    overlong: Literal["drop", "truncate"] = "drop"

    @model_validator(mode="after")
    def _parses(self) -> Prompt:
        if self.template is not None:
            try:
                environment().parse(self.template)  # compiled it would be evaluated in part: see templates.py
            except TemplateSyntaxError as error:
                raise ValueError(
                    f"prompt.template is no Jinja template (line {error.lineno}: {error.message})"
                ) from None
            except RecursionError:
                raise ValueError("prompt.template is nested too deeply") from None
        return self


class MethodSpec(Frozen):
    """One method of the study: its own settings, and a learning rate where it is not the common one.

    ``method`` names the objective where the entry has a name of its own: a variant beside the default form.
    """

    method: Annotated[str, Field(min_length=1)] | None = None
    settings: dict[str, Free] = Field(default_factory=dict)
    learning_rate: Positive | None = None


class Seeds(Frozen):
    init: Seed = 42
    order: Seed = 42


class Replica(Frozen):
    """A method trained once more with one thing changed: the floor beside a comparison."""

    method: str
    order_seed: Seed | None = None
    init_seed: Seed | None = None
    learning_rate: Positive | None = None

    @model_validator(mode="after")
    def _one_change(self) -> Replica:
        changed = [x for x in (self.order_seed, self.init_seed, self.learning_rate) if x is not None]
        if len(changed) != 1:
            raise ValueError("a replica changes exactly one of order_seed, init_seed, learning_rate")
        return self


class Sweep(Frozen):
    """One method at several learning rates, the others' rate among them."""

    method: str = "dpo"
    learning_rates: Annotated[Several[Positive], Field(min_length=1)]


class Measuring(Frozen):
    """What all measurements share; each measurement's own settings stand beside these under its name."""

    top: Count = 10  # k of the principal angles
    chance_draws: Count = 8
    seed: Seed = 0
    threads: Count = 1


if TYPE_CHECKING:
    Analysis = Any
else:
    _OWN = {kind.name: (kind.settings, kind.settings()) for kind in STEP_KINDS.values() if kind.settings is not None}
    Analysis = create_model("Analysis", __base__=Measuring, **_OWN)


@dataclass(frozen=True, kw_only=True)
class Placement(EnginePlace):
    """Where and how fast; never part of an identity."""

    gpus_per_training: Annotated[float, Range(ge=1e-4, le=1)] = 1.0  # Ray counts so finely


class Study(Frozen):
    """One base, one frozen set of rollouts, several objectives, and all that is measured on them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    title: str = ""
    note: str = ""  # what is known of this study from elsewhere, printed below its report's title
    data: str | None = None  # what {data} stands for in paths; ORCHESTRATOR_DATA where unset
    base: Base
    adapter: Declared[LoraSettings] = LoraSettings()
    prompt: Prompt = Prompt()
    rollouts: Rollouts
    training: Declared[TrainingSettings] = TrainingSettings()
    methods: dict[str, MethodSpec] = Field(min_length=1)
    seeds: Seeds = Seeds()
    replicas: Several[Replica] = ()
    sweep: Sweep | None = None
    factorial: Several[Cells] = ()
    max_trainings: Count = 100  # in all; a study with more is refused
    engine: Declared[EngineSettings] = EngineSettings()
    evaluation: Evaluation
    analysis: Analysis = Analysis()
    placement: Declared[Placement] = Placement()

    @model_validator(mode="before")
    @classmethod
    def _bare_methods(cls, raw: Any) -> Any:
        """``sft:`` with nothing behind it is the method with its defaults."""
        if isinstance(raw, dict) and isinstance(raw.get("methods"), dict):
            return {**raw, "methods": {k: {} if v is None else v for k, v in raw["methods"].items()}}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for name in self.methods:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"methods.{name}: a name is lower-case letters, digits and _, a letter first")
            if name == "base":
                raise ValueError("methods.base: base is the name of the base model; take another")
            if name in METHODS and self.objective(name) != name:
                raise ValueError(
                    f"methods.{name}: {name} is an objective's name; call {self.objective(name)} otherwise"
                )
            self.settings_of(name)
        named = [r.method for r in self.replicas] + ([self.sweep.method] if self.sweep else [])
        named += [name for cells in self.factorial for name in cells.methods or ()]
        for name in named:
            if name not in self.methods:
                raise ValueError(f"a replica, the sweep or the factorial names {name!r}, which is not among methods")
        for r in self.replicas:
            same = (self.seeds.order, self.seeds.init, self.learning_rate(r.method))
            if any(new == old for new, old in zip((r.order_seed, r.init_seed, r.learning_rate), same, strict=True)):
                raise ValueError(
                    f"replicas: {r.method} again with nothing changed is no floor; give another seed or rate"
                )
        self._check_trainings()
        if self.engine.max_model_len <= self.prompt.max_prompt_tokens:
            raise ValueError("engine.max_model_len must be above prompt.max_prompt_tokens, or no answer fits")
        pairs = [name for name in self.methods if METHODS[self.objective(name)].view == "pairs"]
        samples = self.rollouts.samples_a_problem
        if pairs and samples is not None and samples < 2:
            raise ValueError(f"methods.{pairs[0]} needs pairs: rollouts.samples must be 2 or more")
        return self

    def _check_trainings(self) -> None:
        count = len(self.methods) + sum(cells.size(len(self.methods)) for cells in self.factorial)
        if count <= self.max_trainings:
            count = len(training_runs(self))
        if count > self.max_trainings:
            raise ValueError(
                f"{count} trainings, more than max_trainings={self.max_trainings}: leave cells of the factorial out, "
                f"or consent with max_trainings={count}"
            )

    def objective(self, name: str) -> str:
        """The key in ``METHODS`` of the study's method of this name."""
        return self.methods[name].method or name

    def settings_of(self, name: str) -> dict[str, Any]:
        """All settings of the study's method of this name, the defaults filled in."""
        return check_method(self.objective(name), self.methods[name].settings)

    def learning_rate(self, method: str) -> float:
        """The peak learning rate at which the study runs the method of this name."""
        return self.methods[method].learning_rate or self.training.learning_rate

    def shaped(self) -> Study:
        """The study with the shapes of its base, and of a model that it samples, where their files tell them."""
        return self.model_copy(update={"base": self.base.shaped(), "rollouts": self.rollouts.shaped()})


__all__ = ["METHODS", "Study"]
