"""What every source of rollouts answers: its identity, what is known of it before a run, its step, its completions."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from execution.settings import Count, Seed
from execution.step import RunsAs
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

PAIRING: dict[str, Any] = {"table": {"pair_rule", "pairs"}}  # settings of the trainings, not of the table


class Table(Frozen):
    """From rollouts to the one frozen table: what is kept, what is held out, how pairs are picked."""

    heldout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of the problems
    rows: Count | None = None  # at most so many training rows, whole groups in a seeded order
    duplicates: Literal["keep", "drop"] = "keep"  # a problem's equal completions, beyond the first
    cut: Literal["drop", "keep"] = "drop"  # right rows that prompt.overlong=truncate cuts before their answer
    pairs: Count | None = TrainConfig.pairs  # at most so many (chosen, rejected) pairs
    pair_rule: PairRule = TrainConfig.pair_rule  # methods/data/view.py says what each is
    seed: Seed = 0


class Found(NamedTuple):
    """Rows before the limits (see ``fit``), what else the statistics tell, and what was dropped already, by reason."""

    rows: list[dict[str, Any]]
    told: dict[str, Any]
    dropped: Counter[str]


class RolloutSource(Frozen):
    """One source of rollouts: its settings, and the answers that the rest asks for instead of asking which it is.

    The defaults are those of completions that exist already. ``collect`` works on a step's config: there the spec
    itself is no longer at hand.
    """

    runs_as: ClassVar[RunsAs] = "task"

    if TYPE_CHECKING:  # each source declares these itself, in the order in which its settings are written
        source: str
        table: Table

    @property
    def asked_problems(self) -> Problems | None:
        """The problems that a model is asked; None where completions exist already."""
        return None

    @property
    def samples_a_problem(self) -> int | None:
        """Completions of each problem; None where only the rows tell."""
        return None

    @property
    def keeps_rewards(self) -> bool:
        """Whether rewards that its rows bring count; else the grader's verdicts do."""
        return False

    @property
    def engine_tokens(self) -> int | None:
        """The longest completion that the study's engine is asked for; None where it is asked for none."""
        return None

    @property
    def teacher(self) -> Base | None:
        """The model that the study must make ready beside its base; None where it needs no other."""
        return None

    def sampled_from(self, base: Base) -> Base | None:
        """The model that the study's engine samples, which may be the study's ``base``; None where it samples none."""
        return None

    def shaped(self) -> Any:
        """This spec with its teacher's shape, where the teacher's files tell it."""
        return self

    @abstractmethod
    def problem_count(self) -> int | None:
        """How many problems, as far as settings tell."""

    def facts(self, resolver: Resolver) -> dict[str, str]:
        """What its names outside the study were resolved to. ``UserError`` for a file that is not there."""
        return {}

    def rows_at_hand(self) -> list[Row]:
        """Rollouts that lie on this machine. None are fetched. ``UserError`` names the first bad row."""
        return []

    def check_access(self) -> None:
        """``UserError`` where this environment lacks what rollouts that are still to come need."""

    @abstractmethod
    def describe(self) -> Iterator[str]:
        """Its lines of a plan."""

    @abstractmethod
    def step(self, kind: StepKind, planned: Planned) -> Step:
        """The step that makes the rollouts."""

    def seconds(self, study: Study) -> float:
        """Estimated time of sampling on one GPU: what is read or asked elsewhere takes none."""
        return 0.0

    def api_cost(self, told: Mapping[str, Any]) -> float | None:
        """Dollars for the tokens that an API's statistics tell; None without prices."""
        return None

    @staticmethod
    def grader(config: Mapping[str, Any]) -> TaskGrader:
        """What grades the completions of a step with this config: of those that exist already, the math grader."""
        from evals.answers import Grader

        return Grader()

    @classmethod
    @abstractmethod
    def collect(cls, context: Context, prompter: Prompter) -> Found:
        """The rollouts of the step whose ``context`` this is, graded; ``prompter`` is the study's base's."""
