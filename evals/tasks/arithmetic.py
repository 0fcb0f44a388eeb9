"""The project's own task: generated two-step word problems over small numbers.

"Tom has 12 apples, buys 9, loses 5. How many?" is 16. Problems are generated from a seed; a stable hash of the
problem's text assigns them to splits, so that pretraining of a from-scratch base, rollouts and evaluation never share
a problem. Objects are *easy* or *hard*: in the pretraining text of a from-scratch base
(``orchestrator/bases/scratch.py``) verbs are misread far more often with hard ones.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from evals.tasks.problem import Problem, Task

NAMES = ("Tom", "Ann", "Sam", "Eve", "Max", "Ida")
EASY = ("apples", "pens")
HARD = ("cards", "coins", "shells", "stamps", "marbles", "beads")
GAINS = ("buys", "finds", "gets", "wins")
LOSSES = ("loses", "sells", "gives", "eats")
PATIENCE = 20  # problems generated per distinct one wanted, at most
SPLITS = {"test": range(0, 2), "train": range(2, 4), "pretrain": range(4, 10)}  # tenths of the hash


@dataclass(frozen=True)
class WordProblem:
    """A number ``start`` and two changes, ``first`` and ``second``, each a (verb, amount)."""

    name: str
    item: str
    start: int
    first: tuple[str, int]
    second: tuple[str, int]

    @property
    def text(self) -> str:
        (v1, n1), (v2, n2) = self.first, self.second
        return f"{self.name} has {self.start} {self.item}, {v1} {n1}, {v2} {n2}. How many?"

    @property
    def middle(self) -> int:
        """The number after the first change."""
        return change(self.start, *self.first)

    @property
    def answer(self) -> int:
        return change(self.middle, *self.second)

    @property
    def stratum(self) -> str:
        return "hard" if self.item in HARD else "easy"

    @property
    def split(self) -> str:
        """The split that this text belongs to."""
        tenth = zlib.crc32(self.text.encode()) % 10
        return next(name for name, tenths in SPLITS.items() if tenth in tenths)


def change(number: int, verb: str, amount: int) -> int:
    return number + amount if verb in GAINS else number - amount


def working(problem: WordProblem, *, slipped: bool, explained: bool) -> str:
    """The solution's text in one of two styles, "40+49=89,89-25=64#64" or with words between (``explained``).

    With ``slipped`` the second change has the wrong sign.
    """

    def sign(verb: str) -> str:
        return "+" if verb in GAINS else "-"

    (v1, n1), (v2, n2) = problem.first, problem.second
    second = {"+": "-", "-": "+"}[sign(v2)] if slipped else sign(v2)
    end = problem.middle + n2 if second == "+" else problem.middle - n2
    one, two = f"{problem.start}{sign(v1)}{n1}={problem.middle}", f"{problem.middle}{second}{n2}={end}"
    return f"{one}; then {two}; so#{end}" if explained else f"{one},{two}#{end}"


def stream(split: str, rng: random.Random, hard_share: float, largest: int) -> Iterator[WordProblem]:
    """Yield problems of one split endlessly, with numbers up to ``largest``.

    The result is never negative, whichever sign the second change has.
    """
    while True:
        item = rng.choice(HARD if rng.random() < hard_share else EASY)
        start, n1 = rng.randint(2, largest), rng.randint(1, largest)
        verb = rng.choice(GAINS + LOSSES)
        if verb in LOSSES:
            start, n1 = max(start, n1), min(start, n1)
        middle = change(start, verb, n1)
        if middle < 1:
            continue
        second = (rng.choice(GAINS + LOSSES), rng.randint(1, min(largest, middle)))
        problem = WordProblem(rng.choice(NAMES), item, start, (verb, n1), second)
        if problem.split == split:
            yield problem


def load(
    source: str | None = None,
    *,
    split: str = "test",
    draw: int | None = None,
    seed: int = 0,
    hard_share: float = 0.8,
    largest: int = 30,
) -> list[Problem]:
    """``draw`` distinct problems (200 where unset) of ``split`` ("test", "train" or "pretrain") from ``seed``.

    ``hard_share`` is the expected fraction of problems about a hard object, ``largest`` the largest number in a text.
    ``ValueError`` for a ``source``, which the task does not read, or if there are too few distinct problems.
    """
    if source is not None:
        raise ValueError(f"the arithmetic task makes its own problems: remove source: {source}")
    if split not in SPLITS:
        raise ValueError(f"the arithmetic task has no split {split!r}; it has {', '.join(SPLITS)}")
    if largest < 2 or not 0 <= hard_share <= 1:
        raise ValueError(f"arithmetic: largest {largest} must be 2 or more, hard_share {hard_share} within 0 and 1")
    wanted = 200 if draw is None else draw
    problems: dict[str, Problem] = {}
    endless = stream(split, random.Random(f"{split} {seed}"), hard_share, largest)
    for made in itertools.islice(endless, PATIENCE * wanted):
        index = f"arithmetic-{split}-{seed}-{len(problems)}"
        solution = working(made, slipped=False, explained=False)
        problems.setdefault(made.text, Problem(index, made.text, str(made.answer), made.stratum, solution))
        if len(problems) == wanted:
            return list(problems.values())
    raise ValueError(
        f"arithmetic: there are not {wanted} distinct problems up to {largest}: draw fewer, or raise largest"
    )


TASK = Task(
    name="arithmetic",
    title="Arithmetic word problems",
    load=load,
    instruction="{problem}",
)
