"""How many rows and pairs the reference study's rollouts give by each way to choose them, from stated shares.

    python benchmarks/rows.py

prints the table of docs/studies/qwen3-4b.md. A problem's rate of right answers has a beta distribution with the
teacher's share of right answers as its mean and CORRELATION as the correlation of two answers to one problem, so the
number of right ones of n is beta-binomial; an answer is overlong with a probability of its own, right or wrong. All
numbers are expectations, computed without a draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PROBLEMS, SAMPLES = 40_000, 4
CORRELATION = 0.6
TEACHERS = {"weak": (0.45, 0.20), "middling": (0.65, 0.10), "strong": (0.85, 0.05)}  # shares right, overlong

Count = Callable[[int, int], float]  # of a problem with so many rows within the limits, so many of them right


@dataclass(frozen=True)
class Rule:
    """One way to choose rows, the settings that choose it, and what it takes of a problem."""

    name: str
    settings: str
    rows: Count
    samples: int = SAMPLES
    overlong: bool = False  # kept, and cut
    at_most: int | None = None


def mixed(n: int, right: int) -> bool:
    return 0 < right < n


RULES = (
    Rule("every answer, overlong ones cut", "`prompt.overlong: truncate`", lambda n, right: n, overlong=True),
    Rule("overlong ones dropped", "`prompt.overlong: drop`", lambda n, right: n),
    Rule("and whole groups drawn, **as shipped**", "`table.rows: 75000`", lambda n, right: n, at_most=75_000),
    Rule("and duplicates dropped", "`table.duplicates: drop`", lambda n, right: n),
    Rule("two answers asked for in place of four", "`samples: 2`", lambda n, right: n, samples=2),
    Rule("at most two of a problem, a right and a wrong one first", "`table.each: 2`", lambda n, right: min(n, 2)),
    Rule("at most three of a problem", "`table.each: 3`", lambda n, right: min(n, 3)),
    Rule("one of a problem, a right one if there is one", "`table.each: 1`", lambda n, right: min(n, 1)),
    Rule("mixed groups alone", "`table.groups: mixed`", lambda n, right: n * mixed(n, right)),
    Rule("a right and a wrong one of each mixed group", "`table: {groups: mixed, each: 2}`",
         lambda n, right: 2 * mixed(n, right)),
    Rule("right answers alone", "what RFT sees of any table", lambda n, right: right),
    Rule("one right answer of a problem", "`source: file`, with these rows", lambda n, right: min(right, 1)),
)  # fmt: skip


def beta_binomial(n: int, k: int, mean: float, correlation: float) -> float:
    """The probability of k right of n answers."""
    scale = (1 - correlation) / correlation
    a, b = mean * scale, (1 - mean) * scale

    def beta(x: float, y: float) -> float:
        return math.exp(math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y))

    return math.comb(n, k) * beta(k + a, n - k + b) / beta(a, b)


def expected(rule: Rule, right: float, overlong: float) -> float:
    """Rows of all problems, held-out ones among them."""
    share = 0.0 if rule.overlong else overlong
    total = 0.0
    for n in range(1, rule.samples + 1):
        left = math.comb(rule.samples, n) * (1 - share) ** n * share ** (rule.samples - n)
        total += left * sum(rule.rows(n, k) * beta_binomial(n, k, right, CORRELATION) for k in range(n + 1))
    rows = PROBLEMS * total
    return rows if rule.at_most is None else min(rows, rule.at_most)


def thousands(rows: float) -> str:
    return f"{rows / 1000:.1f} k"


def lines() -> Iterator[str]:
    heads = [f"{name}: {right:.0%} right, {overlong:.0%} overlong" for name, (right, overlong) in TEACHERS.items()]
    yield f"| rows kept | settings of `rollouts` and `prompt` | {' | '.join(heads)} |"
    yield "| --- " * (2 + len(heads)) + "|"
    for rule in RULES:
        yield (
            f"| {rule.name} | {rule.settings} | "
            + " | ".join(thousands(expected(rule, *shares)) for shares in TEACHERS.values())
            + " |"
        )
    pairs = Rule("", "", lambda n, right: mixed(n, right))
    yield (
        "| **pairs**: one of each mixed group | `table.pair_rule: one` | "
        + " | ".join(thousands(expected(pairs, *shares)) for shares in TEACHERS.values())
        + " |"
    )
    every = Rule("", "", lambda n, right: right * (n - right))
    yield (
        "| **pairs**: every right with every wrong answer | `table.pair_rule: all` | "
        + " | ".join(thousands(expected(every, *shares)) for shares in TEACHERS.values())
        + " |"
    )


if __name__ == "__main__":
    print("\n".join(lines()))
