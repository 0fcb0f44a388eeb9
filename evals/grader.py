"""Interface of a task's grader: completions and gold answers in, verdicts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Verdict:
    """``extracted``: the answer extracted from a completion, or None; ``correct``: whether it equals the gold."""

    extracted: str | None
    correct: bool


class TaskGrader(ABC):
    """Grades the answers of one task. Use it in a ``with`` statement. Completions are never executed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - most graders start nothing
        """End what the grader started, such as processes."""

    @abstractmethod
    def grade(self, rows: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts of (completion, gold answer) pairs, in order."""

    def canonical(self, extracted: str | None) -> str | None:
        """A normalised answer, for majority votes and for comparing golds; None if there is no answer."""
        return extracted
