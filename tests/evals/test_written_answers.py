"""Completions and golds of every kind that was seen to be misread, with the verdicts that a reader would give."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.answers import Grader, as_text, extract, unreadable
from evals.tasks import TASKS
from tests.evals.golds import SAME
from tests.evals.written_cases import WRITTEN


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as opened:
        yield opened


@pytest.mark.parametrize("kind", WRITTEN)
def test_completions_as_models_write_them(kind: str, grader: Grader) -> None:
    verdicts = grader.grade([(completion, gold) for completion, gold, _ in WRITTEN[kind]])
    wrong = [(case, v) for case, v in zip(WRITTEN[kind], verdicts, strict=True) if v.correct is not case[2]]
    assert wrong == []


def test_every_gold_equals_its_forms_and_not_its_neighbour_in_either_order(grader: Grader) -> None:
    assert sum(map(len, SAME)) > 300
    pairs = [(form, form, True) for forms in SAME for form in forms]
    pairs += [(one, other, True) for forms in SAME for one, other in itertools.pairwise(forms)]
    pairs += [(forms[0], others[0], False) for forms, others in itertools.pairwise(SAME)]
    both = [(a, b, same) for one, other, same in pairs for a, b in dict.fromkeys([(one, other), (other, one)])]
    verdicts = grader.grade([(f"\\boxed{{{answer}}}", gold) for answer, gold, _ in both])
    assert [case for case, v in zip(both, verdicts, strict=True) if v.correct is not case[2]] == []


@pytest.mark.parametrize(
    "shape",
    [
        "The final answer is ${}$. I hope it is correct.",
        "**Answer:** \\({}\\)",
        "The answer is:\n\\[\n{}\n\\]\nas shown.",
    ],
)
def test_a_gold_is_found_again_in_every_sentence(shape: str, grader: Grader) -> None:
    golds = [forms[0] for forms in SAME if "\\boxed" not in forms[0]]
    verdicts = grader.grade([(shape.replace("{}", gold), gold) for gold in golds])
    assert [(gold, v) for gold, v in zip(golds, verdicts, strict=True) if not v.correct] == []


@pytest.mark.parametrize("gold", ["18", "-7", "1250", "0.5"])
def test_a_number_is_found_in_gsm8ks_sentences(gold: str) -> None:
    shapes = (
        "A: {}", "#### {}", "The answer is {}.", "The final answer is: {}", "**Answer:** {} eggs", "Answer: ${}",
        "So she has {} left.\nThe answer is {}", "Answer: She has {} of them in the end.", "It is \\boxed{{{}}}.",
        "\\boxed{{\\text{{{} eggs}}}}", "3 + 4 = 7\n#### {}", "The answer is **{}**.", "Therefore, the answer is {}!",
        "Final Answer: {}\n\nI checked it twice.",
    )  # fmt: skip
    with Grader() as grader:
        rows = [(shape.format(*[gold] * shape.count("{}")), gold) for shape in shapes]
        assert [row for row, v in zip(rows, grader.grade(rows), strict=True) if not v.correct] == []
        assert grader.pool.processes == []


def test_golds_that_no_algebra_reads_are_text_and_only_what_breaks_off_is_refused() -> None:
    golds = ["18", "\\angle ABC", "\\mathbb{R}^+", "x+1", "\\frac{", "", "{{{", "9" * 2000, "x^2+", "Evelyn"]
    assert [golds[i] for i in as_text(golds)] == ["\\angle ABC", "\\mathbb{R}^+"]
    assert [golds[i] for i in unreadable(golds)] == ["\\frac{", "", "{{{", "9" * 2000, "x^2+"]


def test_a_split_with_a_gold_that_only_text_can_match_is_loaded_and_the_gold_is_named(tmp_path: Path) -> None:
    golds = ["\\frac \\pi4 + 2 - \\sqrt2", "\\angle ABC", "a + b + c", "\\sin^2 t", "0.47 \\\\", "12"]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"problem": f"P{gold}", "answer": gold}) + "\n" for gold in golds))
    problems = TASKS["deepscaler"].load(str(path))
    assert [problem.answer for problem in problems] == golds
    assert [problem.answer for problem in problems if problem.as_text] == ["\\angle ABC"]


SURDS = [
    ("\\sqrt{16+2\\sqrt{29}+2\\sqrt{55-10\\sqrt{29}}}", "\\sqrt{11-2\\sqrt{29}}+\\sqrt{5}+\\sqrt{0}", False),
    ("\\sqrt{5}+\\sqrt{22+2\\sqrt{5}}", "\\sqrt{11+2\\sqrt{29}}+\\sqrt{16-2\\sqrt{29}+2\\sqrt{55-10\\sqrt{29}}}", True),
    ("\\sqrt[3]{20+14\\sqrt2}+\\sqrt[3]{20-14\\sqrt2}", "4", True),
    ("\\frac{\\sqrt2}{\\sqrt3+\\sqrt5-\\sqrt7}", "\\frac{\\sqrt2(\\sqrt3+\\sqrt5+\\sqrt7)}{1+2\\sqrt{15}}", True),
    ("\\cos 20^\\circ \\cos 40^\\circ \\cos 80^\\circ", "\\frac18", True),
    ("\\sqrt{2+\\sqrt{2+\\sqrt{2+\\sqrt{2}}}}", "2\\cos\\frac{\\pi}{32}", True),
    ("\\sqrt{1+\\sqrt{2+\\sqrt{3+\\sqrt{5}}}}", "\\sqrt{1+\\sqrt{2+\\sqrt{3+\\sqrt{6}}}}", False),
]


def test_nested_roots_are_compared_by_their_values_in_a_moment() -> None:
    """A second of processor time, of which math-verify's simplification or its zero test take up to half a minute."""
    with Grader(seconds=1.0) as quick:
        verdicts = quick.grade([(f"\\boxed{{{answer}}}", gold) for answer, gold, _ in SURDS])
    assert [v.correct for v in verdicts] == [same for _, _, same in SURDS]


def test_a_huge_completion_costs_no_more_than_its_end() -> None:
    begun = time.process_time()
    text = "She has 3 apples and {x} (so). " * 700_000  # 22 MB
    assert extract(text + "The answer is 18. It took 3 steps.") == "18"
    assert extract("<think>" + text + "The answer is 18.") is None
    assert extract(text + "</think>\\boxed{18}") == "18"
    assert time.process_time() - begun < 3
