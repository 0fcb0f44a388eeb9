"""Rollouts that this tool writes itself, of stated lengths: to rehearse a study without a teacher or a download."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evals.tasks import arithmetic
from execution.settings import Count, Seed
from orchestrator.config.values import Several, Two
from orchestrator.rollouts.row import Row
from orchestrator.rollouts.sources.given import GivenRollouts

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver

TOKEN = re.compile(r" ?[A-Za-z]+|.")  # of the tokenizer that bases of this tool have: words, and single signs
FILLER = "+0"
TURN = 2  # tokens of a turn around a prompt: <user>, <assistant>


class WrittenRollouts(GivenRollouts):
    """Worked word problems of the arithmetic task, every second completion right, the others off by one.

    ``sizes`` are tokens of prompt and completion, each problem's in turn; what a text lacks of them is filled with
    "+0", one that is longer stays as it is. They hold for the tokenizer of from_scratch and random bases.
    """

    source: Literal["written"]
    draw: Count = 24  # problems
    samples: Annotated[int, Field(ge=2)] = 4
    sizes: Annotated[Several[Two[Count]], Field(min_length=1)] = ((64, 64),)
    seed: Seed = 0
    places: ClassVar[frozenset[str]] = frozenset()

    @property
    def place(self) -> str:
        return "arithmetic"

    def identity(self, resolver: Resolver) -> str:
        return "written here"

    @property
    def samples_a_problem(self) -> int:
        return self.samples

    def describe(self) -> Iterator[str]:
        sizes = ", ".join(f"{prompt}+{answer}" for prompt, answer in self.sizes)
        yield (
            f"rollouts   {self.draw} problems of arithmetic, {self.samples} completions each written by this tool, "
            f"half of them right; prompt and completion of {sizes} tokens in turn"
        )

    def rows_at_hand(self) -> list[Row]:
        return written(self.draw, self.samples, self.sizes, self.seed)

    @classmethod
    def read(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], progress: Callable[[str], None]
    ) -> tuple[list[Row], Counter[str]]:
        return written(config["draw"], config["samples"], config["sizes"], config["seed"]), Counter()


def written(problems: int, samples: int, sizes: Any, seed: int) -> list[Row]:
    """``samples`` rows for each of so many problems, alternately right (reward 1) and wrong (0)."""
    rows = []
    rng = random.Random(f"written {seed}")
    drawn = arithmetic.load(split="train", draw=problems, seed=seed)
    for problem, (prompt, answer) in zip(drawn, itertools.cycle(sizes), strict=False):
        asked = filled(problem.problem, "", prompt - TURN)
        for sample in range(samples):
            right = sample % 2 == 0
            said = int(problem.answer) + (0 if right else 1)
            working = f"{said}-{rng.randint(0, 99)}={rng.randint(0, 99)},"  # so that no two completions are equal
            text = filled(f"{sample};{working}{said}", f"#{said}", answer - 1)  # and the end of the turn
            rows.append(Row(problem.id, asked, problem.answer, text, "written", float(right)))
    return rows


def filled(text: str, end: str, tokens: int) -> str:
    """``text`` with filler behind it and then ``end``, of so many tokens."""
    lacking = max(0, tokens - len(TOKEN.findall(text + end)))
    return text + (FILLER * lacking)[:lacking] + end
