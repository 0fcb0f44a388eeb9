"""The reference study's page: its table of rows is what the benchmark prints, and that is right by other means."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.rows import CORRELATION, PROBLEMS, RULES, TEACHERS, Rule, beta_binomial, expected, lines
from orchestrator.rollouts.dataset import chosen

PAGE = Path(__file__).resolve().parents[1] / "docs" / "studies" / "qwen3-4b.md"


def test_the_page_has_the_table_that_is_computed() -> None:
    assert "\n".join(lines()) in PAGE.read_text()


def test_the_shares_are_a_distribution_with_the_mean_and_correlation_that_are_stated() -> None:
    for right, _ in TEACHERS.values():
        of = [beta_binomial(4, k, right, CORRELATION) for k in range(5)]
        assert sum(of) == pytest.approx(1) and sum(k * p for k, p in enumerate(of)) == pytest.approx(4 * right)
        both = beta_binomial(2, 2, right, CORRELATION)  # two answers to one problem, both right
        assert (both - right**2) / (right * (1 - right)) == pytest.approx(CORRELATION)


@pytest.mark.parametrize(("settings", "spec"), [
    ("`table.each: 2`", {"each": 2}), ("`table.groups: mixed`", {"groups": "mixed"}),
    ("`table: {groups: mixed, each: 2}`", {"groups": "mixed", "each": 2}), ("`prompt.overlong: drop`", {}),
])  # fmt: skip
def test_the_settings_choose_as_many_rows_of_drawn_answers(settings: str, spec: dict[str, object]) -> None:
    rng, problems = random.Random(0), 8000
    right, overlong = TEACHERS["middling"]
    scale = (1 - CORRELATION) / CORRELATION
    rows = []
    for problem in range(problems):
        rate = rng.betavariate(right * scale, (1 - right) * scale)
        answers = [{"problem_id": str(problem), "reward": float(rng.random() < rate)} for _ in range(4)]
        rows += [answer for answer in answers if rng.random() >= overlong]
    (rule,) = [rule for rule in RULES if rule.settings == settings]
    found = len(chosen(rows, spec)) / problems
    assert found == pytest.approx(expected(rule, right, overlong) / PROBLEMS, rel=0.03)


def test_limits_by_hand() -> None:
    every = Rule("", "", lambda n, right: n)
    assert expected(every, 0.5, 0.25) == pytest.approx(0.75 * 160_000)
    assert expected(Rule("", "", lambda n, right: min(n, 1)), 0.5, 0.5) == pytest.approx(40_000 * (1 - 0.5**4))
