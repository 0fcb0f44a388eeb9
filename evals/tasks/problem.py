"""Problems, and tasks: how problems are loaded, asked and graded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evals.answers import Grader
from evals.grader import TaskGrader


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer. ``stratum`` names a group that is also reported separately, such as "hard".

    ``solution`` is a worked solution that ends with an answer in the task's format, used as a few-shot example; None
    if the source has none. ``as_text``: math-verify cannot read the gold answer, so only equal text matches it.
    ``unreadable``: nothing can be held against the gold answer, which is empty or breaks off; only loaded on demand.
    """

    id: str
    problem: str
    answer: str
    stratum: str | None = None
    solution: str | None = None
    as_text: bool = False
    unreadable: bool = False


@dataclass(frozen=True)
class Task:
    """How a kind of problem is loaded, asked and graded.

    ``load(source, *, split, draw, seed, **settings)`` returns problems; ``instruction`` is the user's turn, with
    ``{problem}`` for the question; ``hub`` is the default source, None for a task that generates its problems, and
    ``splits`` are those that it has there (None: unknown);
    ``grader()`` opens the grader, by default that of mathematics.
    """

    name: str
    title: str
    load: Callable[..., list[Problem]]
    instruction: str
    hub: str | None = None
    grader: Callable[[], TaskGrader] = Grader
    splits: tuple[str, ...] | None = None
