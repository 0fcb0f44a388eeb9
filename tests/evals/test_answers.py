"""Answers: what is found in a completion, what equals the gold, and texts made to hang a grader."""

from __future__ import annotations

import json
import os
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.answers import Grader, Verdict, compare, equal, extract
from evals.exact import number


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("so it is \\boxed{42}.", "42"),
        ("first \\boxed{1}, then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}} of it", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\text{18 eggs}}", "18 eggs"),
        ("done \\boxed{7} but then \\boxed{8", "7"),  # cut off
        ("16 - 3 = <<16-3=13>>13\n#### 13", "13"),
        ("#### 1,450\nand more text 3", "1,450"),
        ("She has 3.\nA: 26", "26"),
        ("**Answer:** 26 eggs.\n", "26 eggs"),
        ("Final answer: $1,234.50.", "$1,234.50"),
        ("A: 10+John's age", "10+John's age"),
        ("A: -1.8 billion", "-1.8 billion"),
        ("The answer is 5 apples, because 3 + 2 is 5. I like 7.", "5"),
        ("So the final answer is: x = 12.", "12"),
        ("the answer is **64**", "64"),
        ("We get 3 * 4 = <<3*4=12>>12 dollars", "12"),
        ("from 20 we take 20-8", "8"),
        ("it falls to -8", "-8"),
        ("it costs 1,234 dollars in all.", "1,234"),
        ("no number at all", None),
        ("", None),
        ("\\boxed{}", None),
    ],
)
def test_extract(completion: str, answer: str | None) -> None:
    assert extract(completion) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18), ("-18.0", -18), ("+3", 3), (".5", Fraction(1, 2)), ("1,234,567.5", Fraction(2469135, 2)),
        ("$1,234", 1234), ("\\$5", 5), ("$\\frac{3}{4}$", Fraction(3, 4)), ("\\dfrac12", Fraction(1, 2)),
        ("-7/14", Fraction(-1, 2)), ("2 1/2", Fraction(5, 2)), ("50%", 50), ("50\\%", 50), ("3.2e5", 320000),
        ("1{,}000", 1000), ("12\\,345", 12345), ("18 eggs per day.", 18), ("30^\\circ", 30), ("20 cm^2", 20),
        ("5 \\text{ miles}", 5), ("1.8 billion", 1800000000), ("60 km/h", 60), ("− 4", -4), ("025", 25),
        ("26.", 26), ("**7**", 7),
        ("5x", None), ("x=5", None), ("10+y", None), ("2^10", None), ("10^10^10", None), ("3 and 4", None),
        ("1/0", None), ("1,23", None), ("2\\pi", None), ("2 pi", None), ("5 x", None), ("(3, 4)", None), ("", None),
        ("1e99999", None), ("1e9999999999999", None), ("9" * 100000, None), ("eggs", None),
    ],
)  # fmt: skip
def test_number(text: str, value: Fraction | int | None) -> None:
    assert number(text) == value


@given(st.fractions(max_denominator=10**6))
def test_every_fraction_is_read_back(value: Fraction) -> None:
    assert number(str(value)) == value
    assert number(f"\\frac{{{value.numerator}}}{{{value.denominator}}}") == value


@given(st.integers(-(10**15), 10**15))
def test_every_integer_is_read_back_in_every_dress(value: int) -> None:
    for dress in ("{:,}", "{}.00", "{} apples", "\\text{{{}}}", "${}$", "{}."):
        assert number(dress.format(value)) == value


@given(st.text(alphabet="0123456789.,/+-eE^%$\\{}() abcx<>#:\n", max_size=200))
def test_no_text_breaks_the_exact_part(text: str) -> None:
    found = extract(text)
    assert found is None or (found == found.strip() and found)
    assert compare(text, text) is not False or len(text.split()) == 0 or not text.strip(" \t\r\n.:;,*`\"'$\\[]()")


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        ("18.00", "18", True), ("19", "18", False), ("$1,234", "1234", True), ("50%", "0.5", True), ("50%", "50", True),
        ("0.5", "50%", True), ("0.5", "50", False), ("0.3333", "1/3", False), ("0.25", "\\frac14", True),
        ("x + 1", "x+1", True), ("none", "3", False), ("x" * 2000, "3", False),
        ("5x", "5", None), ("\\sqrt{16}", "4", None),
    ],
)  # fmt: skip
def test_compare(answer: str, gold: str, verdict: bool | None) -> None:
    assert compare(answer, gold) is verdict


def test_numbers_alone_start_no_process() -> None:
    with Grader() as grader:
        verdicts = grader.grade([("A: 18", "18"), ("A: 17", "18"), ("I do not know", "18")])
        assert verdicts == [Verdict("18", True), Verdict("17", False), Verdict(None, False)]
        assert grader._process is None


def test_algebra_decides_what_is_no_number_and_a_hang_is_only_wrong() -> None:
    nested = "\\boxed{" + "{" * 5000 + "1" + "}" * 5000 + "}"
    rows = [
        ("\\boxed{\\sqrt{16}}", "4"),
        ("\\boxed{(x+1)^2}", "x^2+2x+1"),
        ("\\boxed{5x}", "5"),
        ("\\boxed{10^{10^{10}}}", "7"),
        ("\\boxed{2\\pi}", "\\pi+\\pi"),  # after the hang: a new process answers
        (nested, "1"),
        ("\\boxed{__import__('os').getcwd()}", "1"),
        ("\x00\x07<script>1</script>\\boxed{3}", "3"),
    ]
    started = time.monotonic()
    with Grader(seconds=2.0) as grader:
        verdicts = grader.grade(rows)
        process = grader._process
        assert process is not None
    assert process.poll() is not None  # ended with the grader
    assert [v.correct for v in verdicts[:5]] == [True, True, False, False, True]
    assert [v.correct for v in verdicts[6:]] == [False, True]
    assert time.monotonic() - started < 60


def test_a_killed_process_costs_its_row_and_no_other() -> None:
    with Grader() as grader:
        assert grader.equal("\\sqrt{9}", "3")
        assert grader._process is not None
        grader._process.kill()
        grader._process.wait()
        assert not grader.equal("\\sqrt{9}", "3")
        assert grader.equal("\\sqrt{9}", "3")


def test_equal_by_itself() -> None:
    assert equal("1/2", "0.5")
    assert equal("\\frac{\\sqrt{4}}{2}", "1")


def test_long_texts_take_linear_time() -> None:
    started = time.monotonic()
    for text in (
        "9" * 10**6,
        "\\boxed{" * 10**5,
        "A: " * 3 * 10**5,
        "<<" * 5 * 10**5,
        "a" * 999 + "=",
        "answer is " * 10**5,
    ):
        extract(text)
        compare(text, "3")
    assert extract("x" * 10**6 + "\n#### 5") == "5"
    assert number("5 " + "a" * 990 + "=") is None
    assert time.monotonic() - started < 10


OWN_ROWS = [
    {"completion": "3 + 4 = <<3+4=7>>7 eggs\nA: 7", "answer": "7", "reward": 1},
    {"completion": "3 + 4 = <<3+4=8>>8 eggs\nA: 8", "answer": "7", "reward": 0},
    {"completion": "It keeps counting 3 4 5", "answer": "7", "reward": 0},
    {"completion": "A: -1.8 billion", "answer": "2", "reward": 0},
    {"completion": "A: 7/14", "answer": "34", "reward": 0},
    {"completion": "2 * 5 = <<2*5=10>>10.00\nA: 10.00", "answer": "10", "reward": 1},
]


def test_the_grader_agrees_with_published_rewards(tmp_path: Path) -> None:
    """Every row of four teachers' published GSM8K transcripts where the data folder is at hand, else rows like them."""
    if "ORCHESTRATOR_DATA" in os.environ:
        path = Path(os.environ["ORCHESTRATOR_DATA"]) / "gsm8k" / "rollouts.jsonl"
    else:
        path = tmp_path / "rollouts.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in OWN_ROWS))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    with Grader() as grader:
        verdicts = grader.grade([(row["completion"], row["answer"]) for row in rows])
    wrong = [(row["answer"], v) for row, v in zip(rows, verdicts, strict=True) if v.correct != bool(row["reward"])]
    assert rows
    assert wrong == []
