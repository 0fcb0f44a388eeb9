"""What a task is made of: problems, how to load and ask them, and how their answers are graded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evals.answers import Grader
from evals.grader import TaskGrader


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer. ``stratum`` names a group that is also reported apart, such as "hard".

    ``solution`` is the worked solution as an assistant would write it, ending in the form of answer that the task asks
    for: an example to be shown before other problems. None where the source gives none. ``as_text``: no
    algebra can read the gold answer, so that only equal text matches it.
    """

    id: str
    problem: str
    answer: str
    stratum: str | None = None
    solution: str | None = None
    as_text: bool = False


@dataclass(frozen=True)
class Task:
    """A kind of problem: where it is loaded from, how it is asked and how its answers are graded.

    ``load(source, *, split, draw, seed, **settings)`` returns problems; ``instruction`` is the text of the user's
    turn, in which ``{problem}`` stands for the question; ``hub`` is the source that serves where none is given, None
    for a task that makes its problems itself; ``grader()`` opens what grades its answers, by default as mathematics.
    """

    name: str
    title: str
    load: Callable[..., list[Problem]]
    instruction: str
    hub: str | None = None
    grader: Callable[[], TaskGrader] = Grader
