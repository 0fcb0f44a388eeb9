"""The schema of a study: frozen data that rejects unknown keys.

Everything that affects a result goes into the steps' keys (``plan.py``). Where and how fast a study runs (GPUs, slots,
folders) does not: that is ``Placement``. Defaults are the recommended settings; where the reference study left a
choice open, a comment says so.
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
from orchestrator.config.search import Search
from orchestrator.config.values import Declared, Free, Frozen, Several
from orchestrator.planning.matches import Match, unmatched
from orchestrator.planning.scaled_copies import scaled_copies
from orchestrator.planning.training_runs import training_runs
from orchestrator.prompts.templates import environment
from orchestrator.rollouts.sources import Rollouts
from orchestrator.steps import STEP_KINDS

MOST_COMBINATIONS = 20_000  # of a factorial, before what it excludes
NAME = r"[a-z][a-z0-9_]{0,40}"  # of a method in a study


class Prompt(Frozen):
    """How a problem becomes tokens, the same for rollouts, training and evaluation."""

    system: str | None = None
    template: str | None = None  # a chat template in Jinja; None: the tokenizer's own
    thinking: bool | None = None  # enable_thinking of the template; None: not passed
    max_prompt_tokens: Count = 1024
    max_answer_tokens: Count = 1024
    overlong: Literal["drop", "truncate"] = "drop"

    @model_validator(mode="after")
    def _parses(self) -> Prompt:
        if self.template is not None:
            try:
                environment().parse(self.template)  # not compiled: that evaluates parts (templates.py)
            except TemplateSyntaxError as error:
                raise ValueError(
                    f"prompt.template is not a Jinja template (line {error.lineno}: {error.message})"
                ) from None
            except RecursionError:
                raise ValueError("prompt.template is nested too deeply") from None
        return self


class MethodSpec(Frozen):
    """One method of the study: its own settings, and a learning rate if it differs from the common one.

    ``method`` names the objective if the entry has another name, as a variant beside the default form has.
    """

    method: Annotated[str, Field(min_length=1)] | None = None
    settings: dict[str, Free] = Field(default_factory=dict)
    learning_rate: Positive | None = None


class Seeds(Frozen):
    init: Seed = 42
    order: Seed = 42


class Replica(Frozen):
    """A method trained again with one change: the floor for comparisons of methods."""

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
    """One method at several learning rates, including the rate of the other methods."""

    method: str = "dpo"
    learning_rates: Annotated[Several[Positive], Field(min_length=1)]


class Measuring(Frozen):
    """Settings shared by all measurements; each measurement's own settings are added under its name."""

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
    """Where and how fast a study runs; never part of a step's key."""

    gpus_per_training: Annotated[float, Range(ge=1e-4, le=1)] = 1.0  # Ray's resolution of resources
    gpu_memory_gib: Positive | None = None  # of one GPU; None: as the driver of this machine says


class Study(Frozen):
    """One base, one frozen set of rollouts, several objectives, and all measurements of them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    title: str = ""
    note: str = ""  # printed below the report's title
    data: str | None = None  # replaces {data} in paths; None: ORCHESTRATOR_DATA
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
    norm_matched: bool = False  # every method's update is evaluated at the norm of the reference's too
    matches: Several[Match] = ()  # in what a method and the reference must agree to be compared; none stated: all kinds
    search: Annotated[Search | None, Field(exclude_if=lambda search: search is None)] = None
    max_trainings: Count = 100  # in all; a study with more is refused
    engine: Declared[EngineSettings] = EngineSettings()
    evaluation: Evaluation
    analysis: Analysis = Analysis()
    placement: Declared[Placement] = Placement()

    @model_validator(mode="before")
    @classmethod
    def _bare_methods(cls, raw: Any) -> Any:
        """``sft:`` without a value is the method with its defaults."""
        if isinstance(raw, dict) and isinstance(raw.get("methods"), dict):
            return {**raw, "methods": {k: {} if v is None else v for k, v in raw["methods"].items()}}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for name in self.methods:
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"methods.{name}: a name consists of lower-case letters, digits and _, and begins with a letter"
                )
            if name == "base":
                raise ValueError("methods.base: base is the name of the base model; choose another name")
            if name in METHODS and self.objective(name) != name:
                raise ValueError(
                    f"methods.{name}: {name} is an objective's name; give {self.objective(name)} another name"
                )
            self.settings_of(name)
        named = [("replicas", replica.method) for replica in self.replicas]
        named += [("sweep.method", self.sweep.method)] if self.sweep else []
        named += [("search.methods", method) for method in (self.search and self.search.methods) or ()]
        named += [(f"factorial.{i}.methods", m) for i, cells in enumerate(self.factorial) for m in cells.methods or ()]
        for place, name in named:
            if name not in self.methods:
                raise ValueError(f"{place} names {name!r}, which is not among methods ({', '.join(self.methods)})")
        for r in self.replicas:
            same = (self.seeds.order, self.seeds.init, self.learning_rate(r.method))
            if any(new == old for new, old in zip((r.order_seed, r.init_seed, r.learning_rate), same, strict=True)):
                raise ValueError(
                    f"replicas: {r.method} again with nothing changed is no floor; give another seed or rate"
                )
        self._check_trainings()
        self._check_search()
        if self.engine.max_model_len <= self.prompt.max_prompt_tokens:
            raise ValueError("engine.max_model_len must exceed prompt.max_prompt_tokens, or no answer fits")
        self.rollouts.check(self)
        pairs = [name for name in self.methods if METHODS[self.objective(name)].view == "pairs"]
        samples = self.rollouts.samples_a_problem
        if pairs and samples is not None and samples < 2:
            raise ValueError(f"methods.{pairs[0]} needs pairs: rollouts.samples must be 2 or more")
        return self

    def _check_trainings(self) -> None:
        combinations = sum(cells.size(len(self.methods)) for cells in self.factorial)
        if combinations > MOST_COMBINATIONS:
            raise ValueError(f"factorial: {combinations} combinations, {MOST_COMBINATIONS} are the most")
        runs = training_runs(self)
        count = len(runs)
        if self.search is not None:  # at most: some of these are trainings of the study already
            count += len(self.searched) * (self.search.count + len(self.search.orders or (0,)) - 1)
        if count > self.max_trainings:
            less = "the factorial" if self.search is None else "the search"
            what = "cells" if less == "the factorial" else "trials"
            raise ValueError(
                f"{count} trainings, more than max_trainings={self.max_trainings}: leave {what} of {less} out, "
                f"or consent with max_trainings={count}"
            )
        scaled_copies(self, runs)
        samples = self.rollouts.samples_a_problem
        if samples is not None and samples < 2 and any(run.training.examples == "paired" for run in runs):
            raise ValueError("training.examples=paired needs pairs: rollouts.samples must be 2 or more")
        if wrong := self._unmade_match() or unmatched(self.matches, runs, self.reference):
            raise ValueError(f"matches: {wrong}")

    def _unmade_match(self) -> str | None:
        """What is wrong with a stated match that a setting of its own makes; None where all can be made."""
        if "norm" in self.matches and not self.norm_matched:
            return "norm: no update is scaled: set norm_matched=true"
        searched = set(self.searched)
        if "best_rate" in self.matches and not (self.reference in searched and searched - {self.reference}):
            return f"best_rate: needs a search of {self.reference}'s rate and of another method's: see search"
        if "as_published" in self.matches and len({self.learning_rate(name) for name in self.methods}) == 1:
            return "as_published: all methods have one learning rate: state learning_rate in its place"
        return None

    @property
    def reference(self) -> str:
        """The method that others are compared to, by the rule of ``results.headline.reference_among``."""
        return "sft" if "sft" in self.methods else next(iter(self.methods))

    def _check_search(self) -> None:
        if self.search is None:
            return
        if not self.rollouts.table.heldout:
            raise ValueError(
                "search: no problem is held out of the rollouts to judge a rate on: set rollouts.table.heldout"
            )
        from orchestrator.search.trials import rates_of  # which knows the steps that a study's settings are made from

        self.search.rungs(self.training.reported_step)
        rates_of(self.search)
        if self.search.algorithm == "asha" and self.training.backend == "trl":
            raise ValueError(
                "search: asha goes on with trainings that have ended, which training.backend=trl cannot: set "
                "training.backend=native, or search.algorithm=grid"
            )

    @property
    def searched(self) -> list[str]:
        """The methods whose learning rate is searched, in the study's order."""
        if self.search is None:
            return []
        return [name for name in self.methods if name in (self.search.methods or self.methods)]

    def objective(self, name: str) -> str:
        """The key in ``METHODS`` of the study's method of this name."""
        return self.methods[name].method or name

    def settings_of(self, name: str) -> dict[str, Any]:
        """All settings of the study's method of this name, including defaults."""
        return check_method(self.objective(name), self.methods[name].settings)

    def learning_rate(self, method: str) -> float:
        """The peak learning rate at which the study runs the method of this name."""
        return self.methods[method].learning_rate or self.training.learning_rate

    def shaped(self) -> Study:
        """A copy with the shapes of its base and of a sampled model filled in, if their files are known."""
        return self.model_copy(update={"base": self.base.shaped(), "rollouts": self.rollouts.shaped()})


__all__ = ["METHODS", "Study"]
