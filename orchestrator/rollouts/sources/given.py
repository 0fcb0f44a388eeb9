"""Common part of sources of existing rollouts."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from execution.settings import Count
from execution.step import Step, StepKind
from orchestrator.config.evaluation import holds_problem
from orchestrator.rollouts.row import Row
from orchestrator.rollouts.sources.source import PAIRING, Found, RolloutSource, Table

if TYPE_CHECKING:
    from execution.context import Context
    from orchestrator.planning.plan import Planned
    from orchestrator.planning.resolve import Resolver
    from orchestrator.prompts.prompter import Prompter


class GivenRollouts(RolloutSource):
    """Existing completions. ``places`` names the settings for their location, which are not part of the step's
    identity."""

    instruction: str = "{problem}"
    draw: Count | None = None  # number of problems of a fixed draw
    rewards: Literal["given", "graded"] = "given"  # graded: by this tool's grader, ignoring the rows' rewards
    table: Table = Table()
    places: ClassVar[frozenset[str]]

    @model_validator(mode="after")
    def _asks(self) -> GivenRollouts:
        holds_problem(self.instruction)
        return self

    @property
    @abstractmethod
    def place(self) -> str:
        """Location of the rows: a path or a hub name."""

    @abstractmethod
    def identity(self, resolver: Resolver) -> str:
        """A content hash or a hub commit. ``UserError`` if the rows are missing."""

    @classmethod
    @abstractmethod
    def read(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], progress: Callable[[str], None]
    ) -> tuple[list[Row], Counter[str]]:
        """The rows at ``runtime["path"]``, and counts of completions left out, by reason. ``UserError``: a bad row.

        ``config`` holds the settings without ``places``; for a hub dataset ``runtime["revision"]`` is the commit.
        """

    @property
    def locator(self) -> str:
        """The rows' name among the resolved inputs."""
        return f"{self.source}:{self.place}"

    @property
    def keeps_rewards(self) -> bool:
        return self.rewards == "given"

    def problem_count(self) -> int | None:
        return self.draw

    def facts(self, resolver: Resolver) -> dict[str, str]:
        return {self.locator: self.identity(resolver)}

    def describe(self) -> Iterator[str]:
        draw = "all" if self.draw is None else self.draw
        yield f"rollouts   {self.place}, {draw} problems, rewards {self.rewards}"

    def step(self, kind: StepKind, planned: Planned) -> Step:
        from orchestrator.steps.problems import is_commit

        content = planned.resolved[self.locator]
        config = self.model_dump(exclude=dict.fromkeys(self.places, True) | PAIRING)
        config |= {"prompt": planned.study.prompt.model_dump(), "content": content}
        where = {"path": self.place, "revision": content if is_commit(content) else None}
        return Step(kind, self.source, config, {"base": planned.first("base")}, where)

    @classmethod
    def collect(cls, context: Context, prompter: Prompter) -> Found:
        rows, dropped = cls.read(context.config, context.runtime, context.progress)
        return Found(*_graded(context, rows), dropped)


def _graded(context: Context, read: list[Row]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows with their own rewards or the grader's, and the agreement of the two."""
    config = context.config
    given = read[0].reward is not None
    stats: dict[str, Any] = {}
    context.progress(f"grading {len(read)} rollouts")
    with GivenRollouts.grader(context.config) as grader:
        verdicts = [float(v.correct) for v in grader.grade([(row.completion, row.answer) for row in read])]
    if given:
        agreed = sum(v == ((row.reward or 0) > 0) for v, row in zip(verdicts, read, strict=True))
        stats["grader_agreement"] = {"rows": len(read), "agreed": agreed}
    rewards = [r.reward if given and config["rewards"] == "given" else v for v, r in zip(verdicts, read, strict=True)]
    rows = [
        {
            "problem_id": row.problem_id,
            "problem": row.problem,
            "answer": row.answer,
            "completion": row.completion,
            "teacher": row.teacher,
            "reward": reward,
            "graded": verdict > 0,
            "opening": "",
            "ended": True,
            "instruction": config["instruction"],
        }
        for row, reward, verdict in zip(read, rewards, verdicts, strict=True)
    ]
    return rows, stats
