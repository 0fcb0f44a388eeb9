"""Common part of sources that sample completions from a model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from evals.tasks import TASKS, Problem
from execution.settings import Count, Positive, Seed
from orchestrator.config.evaluation import Problems, TopP, holds_problem
from orchestrator.planning import cost
from orchestrator.rollouts.sources.source import PAIRING, RolloutSource, Table

if TYPE_CHECKING:
    from evals.grader import TaskGrader
    from execution.context import Context
    from orchestrator.planning.plan import Planned


class AskedRollouts(RolloutSource):
    """K completions per problem, sampled from a model."""

    problems: Problems
    samples: Count = 4
    temperature: Positive = 1.0
    top_p: TopP = 1.0
    max_tokens: Count = 1024
    seed: Seed = 0
    shard: Count = 500  # problems per call; the unit of resume
    instruction: str | None = None  # the model's prompt, if it differs from the students'
    table: Table = Table()

    @model_validator(mode="after")
    def _asks(self) -> AskedRollouts:
        holds_problem(self.instruction)
        return self

    @property
    def asked_problems(self) -> Problems:
        return self.problems

    @property
    def samples_a_problem(self) -> int:
        return self.samples

    @property
    @abstractmethod
    def answered_by(self) -> str:
        """The model's name in a plan."""

    @property
    def asked_for(self) -> str:
        """Completions of each problem, in a plan."""
        return f"{self.samples} completions each from {self.answered_by}"

    def problem_count(self) -> int:
        return cost.problem_count(self.problems)

    def describe(self) -> Iterator[str]:
        draw = "all" if self.problems.draw is None else self.problems.draw
        yield (
            f"rollouts   {draw} problems of {self.problems.task}, {self.asked_for}, temperature "
            f"{self.temperature:g}, at most {self.max_tokens} tokens"
        )

    def asked_config(self, planned: Planned, without: set[str]) -> dict[str, Any]:
        """What determines the answers: the settings not in ``without``, and the problems' content."""
        from orchestrator.steps.problems import problems_config

        config = self.model_dump(exclude=dict.fromkeys(without | {"problems"}, True) | PAIRING)
        config["problems"] = problems_config(self.problems, planned.resolved)
        return config | {"prompt": planned.study.prompt.model_dump()}

    def asked_runtime(self, planned: Planned) -> dict[str, Any]:
        """Runtime inputs: where the problems are read from."""
        from orchestrator.steps.problems import pinned

        return {"sources": [pinned(self.problems.task, self.problems.source, planned.resolved)]}

    @staticmethod
    def grader(config: Mapping[str, Any]) -> TaskGrader:
        """The grader of the problems' task."""
        return TASKS[config["problems"]["task"]].grader()


def instruction_of(config: Mapping[str, Any]) -> str:
    """The teacher's instruction, which can differ from the students'."""
    return config["instruction"] or _students(config["problems"])


def _students(spec: dict[str, Any]) -> str:
    return spec["instruction"] or TASKS[spec["task"]].instruction


def told_golds(left_out: list[dict[str, str]]) -> dict[str, Any]:
    """The statistics' entry on problems that were not asked, as nothing can check their gold answers; empty if none."""
    return {"golds_left_out": left_out} if left_out else {}


def verified(
    context: Context, answers: Sequence[tuple[Problem, str, bool]], teacher: str, opening: str = ""
) -> list[dict[str, Any]]:
    """Graded rows from (problem, completion, ended by itself) tuples; ``opening`` is the prompt's reasoning tag."""
    context.progress(f"grading {len(answers)} rollouts")
    with AskedRollouts.grader(context.config) as grader:
        verdicts = grader.grade([(opening + text, problem.answer) for problem, text, _ in answers])
    student = _students(context.config["problems"])
    return [
        {
            "problem_id": problem.id,
            "problem": problem.problem,
            "answer": problem.answer,
            "completion": text,
            "teacher": teacher,
            "reward": float(verdict.correct),
            "graded": verdict.correct,
            "opening": opening,
            "ended": ended,
            "instruction": student,
        }
        for (problem, text, ended), verdict in zip(answers, verdicts, strict=True)
    ]
