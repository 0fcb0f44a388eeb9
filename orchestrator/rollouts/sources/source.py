"""The interface of every source of rollouts: identity, facts known before a run, its step, its completions."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from execution.settings import Count, Seed
from methods.config import TrainConfig
from methods.data.view import PairRule
from orchestrator.config.values import Frozen

if TYPE_CHECKING:
    from evals.grader import TaskGrader
    from execution.context import Context
    from execution.step import Step, StepKind
    from orchestrator.bases import Base
    from orchestrator.config.evaluation import Problems
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from orchestrator.planning.resolve import Resolver
    from orchestrator.prompts.prompter import Prompter
    from orchestrator.rollouts.row import Row
    from orchestrator.runtime.served_models import Served

PAIRING: dict[str, Any] = {"table": {"pair_rule", "pairs"}}  # settings of trainings, not part of the table's identity


class Table(Frozen):
    """How the table is made from rollouts: what is kept, what is held out, how pairs are chosen."""

    heldout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # fraction of the problems
    rows: Count | None = None  # largest number of training rows, whole groups in a seeded order
    duplicates: Literal["keep", "drop"] = "keep"  # a problem's equal completions, beyond the first
    groups: Annotated[Literal["all", "mixed"], Field(exclude_if=lambda kind: kind == "all")] = "all"
    each: Annotated[Count | None, Field(exclude_if=lambda most: most is None)] = None  # rows a problem, its first ones
    cut: Literal["drop", "keep"] = "drop"  # right rows that prompt.overlong=truncate cuts before their answer
    pairs: Count | None = TrainConfig.pairs  # largest number of (chosen, rejected) pairs
    pair_rule: PairRule = TrainConfig.pair_rule  # see methods/data/view.py
    seed: Seed = 0


class Found(NamedTuple):
    """Rows before the limits (see ``fit``), further statistics, and counts of dropped rows by reason."""

    rows: list[dict[str, Any]]
    told: dict[str, Any]
    dropped: Counter[str]


class RolloutSource(Frozen):
    """One source of rollouts: its settings and its behaviour, so that no other code depends on the source.

    The defaults are those of existing completions. ``collect`` works on a step's config, where the spec is not
    available.
    """

    if TYPE_CHECKING:  # each source declares these itself, in the order in which its settings are written
        source: str
        table: Table

    @property
    def asked_problems(self) -> Problems | None:
        """The problems that a model is asked; None for existing completions."""
        return None

    @property
    def samples_a_problem(self) -> int | None:
        """Completions per problem; None if only the rows tell."""
        return None

    @property
    def keeps_rewards(self) -> bool:
        """Whether the rows' own rewards are used instead of the grader's verdicts."""
        return False

    @property
    def engine_tokens(self) -> int | None:
        """The largest number of tokens per completion from the study's engine; None if it is not used."""
        return None

    @property
    def teachers(self) -> list[Base]:
        """The models that must be prepared in addition to the study's base."""
        return []

    def served(self, study: Study) -> list[Served]:
        """The models that the study's engines sample from, the study's base possibly among them."""
        return []

    def check(self, study: Study) -> None:
        """``ValueError`` for settings that do not fit the rest of the study."""

    def shaped(self) -> Any:
        """This spec with its teachers' shapes filled in, if known."""
        return self

    @abstractmethod
    def problem_count(self) -> int | None:
        """Number of problems, if the settings determine it."""

    def facts(self, resolver: Resolver) -> dict[str, str]:
        """Resolved inputs: names outside the study -> hash or commit. ``UserError`` for a missing file."""
        return {}

    def rows_at_hand(self) -> list[Row]:
        """Rollouts on this machine; nothing is fetched. ``UserError`` names the first bad row."""
        return []

    def check_access(self) -> None:
        """``UserError`` if this environment lacks what collecting needs, such as an API key."""

    def check_cost(self) -> None:
        """``UserError`` if collecting costs money and the study does not limit it, or to too little to begin."""

    @abstractmethod
    def describe(self) -> Iterator[str]:
        """Yield the source's lines of a plan."""

    @abstractmethod
    def step(self, kind: StepKind, planned: Planned) -> Step:
        """The step that collects the rollouts. It runs in an engine's process if its config has ``engine``."""

    def sample_steps(self, kind: StepKind, planned: Planned) -> list[Step]:
        """Steps that sample parts of the rollouts, each on an engine of its own, for the step that collects them."""
        return []

    def seconds(self, study: Study) -> float:
        """Estimated seconds of sampling: on one engine, or from an API; 0 for rollouts that exist."""
        return 0.0

    def sample_seconds(self, study: Study, step: Step) -> float:
        """Estimated seconds of one of ``sample_steps``."""
        return 0.0

    def api_cost(self, statistics: Mapping[str, Any]) -> float | None:
        """Dollars for the tokens in an API's ``statistics``; None without prices."""
        return None

    @staticmethod
    def grader(config: Mapping[str, Any]) -> TaskGrader:
        """The grader for a step with this config; for existing completions the math grader."""
        from evals.answers import Grader

        return Grader()

    @classmethod
    @abstractmethod
    def collect(cls, context: Context, prompter: Prompter) -> Found:
        """The graded rollouts of the step; ``prompter`` is that of the study's base."""
