"""Answers: what is found in a completion, what equals the gold, and texts made to hang a grader."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evals.pool
from evals.answers import Grader, Verdict, canonical, compare, equal, extract, unreadable
from evals.exact import formula, number
from evals.pool import Pool


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
        ("\\boxed{\\boxed{3}}", "3"),
        ("\\boxed{7 and so \\boxed{8}", "8"),
        ("so it is \\boxed{\\frac{3}{4}", "\\frac{3}{4}"),  # cut off
        ("so it is \\boxed{\\frac{3}{4", "\\frac{3}{4"),
        ("\\boxed 5 is it", "5"),
        ("\\\\boxed{5}", "5"),
        ("\\fbox{6}", "6"),
        ("<think>\\boxed{3}? No.</think>It is \\boxed{4}", "4"),
        ("<think>\\boxed{3}</think>", None),
        ("<think>a</think>b \\boxed{1} <think>again, 7</think> 2", "2"),
        ("**Final Answer**\n\n$$\n42\n$$", "42"),
        ("The final answer is:\n\n\\[ x+1 \\]", "x+1"),
        ("The answer is $2\\pi$.", "2\\pi"),
        ("The answer is 2\\pi.", "2\\pi"),
        ("The answer is 3 + x.", "3 + x"),
        ("The answer is 1.5x.", "1.5x"),
        ("The answer is 3:4 because", "3:4"),
        ("The answer is (C).", "(C)"),
        ("The answer is y = 2x + 1.", "y = 2x + 1"),
        ("#### Step 3: add\nThat makes 5.", "5"),
        ("so it is $\\frac{3}{4}$.", "\\frac{3}{4}"),
        ("we get 3/4.", "3/4"),
        ("that is 50%.", "50%"),
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


CASES = [  # answer, gold, whether they are the same
    ("1 2", "12", False), ("1 \\quad 2", "12", False), ("1 0 1", "101", False), ("1 000", "1000", True),
    ("7 am", "7 pm", False), ("7:30 a.m.", "7:30 pm", False), ("7 a.m.", "7 am", True), ("7 am", "7", True),
    ("2:40", "1:20", False), ("2:4", "1:2", True), ("approximately 3.14", "3.14", True), ("\\approx 2", "2", True),
    # fractions, mixed numbers, decimals, percentages
    ("\\frac{1}{2}", "\\frac12", True), ("\\dfrac{3}{4}", "0.75", True), ("\\tfrac34", "\\frac{3}{4}", True),
    ("\\frac9{19}", "\\frac{9}{19}", True), ("-\\frac{2}{3}", "\\frac{-2}{3}", True),
    ("\\frac{2}{-3}", "-\\frac23", True),
    ("5\\frac{1}{2}", "\\frac{11}{2}", True), ("2\\frac34", "2.75", True), ("-1\\frac12", "-1.5", True),
    ("3\\frac{125}{216}", "\\frac{773}{216}", True), ("2½", "2.5", True), ("1/2", "0.5", True), (".5", "1/2", True),
    ("50\\%", "\\frac{1}{2}", True), ("0.5", "50\\%", True), ("5\\%", "0.5", False), ("18.6\\%", "18.6", True),
    ("0.\\overline{3}", "\\frac13", True), ("0.1\\overline{6}", "\\frac{1}{6}", True), ("0.33", "\\frac13", False),
    ("−3", "-3", True), ("–3", "-3", True), ("3", "-3", False), ("007", "7", True), ("+7", "7", True),
    # thousands, currency, units, degrees, powers of ten
    ("1{,}000", "1000", True), ("10,\\!000", "10000", True), ("\\$32,\\!348", "32,348", True),
    ("1\\,234", "1234", True),
    ("1 000 000", "1,000,000", True), ("1,000", "1", False), ("$12.50", "12.5", True),
    ("\\$12.50", "12.50 dollars", True),
    ("24 \\text{ cm}^2", "24", True), ("24\\text{ cm}^{2}", "24\\mbox{ cm}^2", True), ("24cm", "24", True),
    ("24 square centimeters", "24", True), ("60 \\mathrm{~km/h}", "60", True), ("5 \\text{ apples}", "6", False),
    ("90^\\circ", "90", True), ("90^{\\circ}", "90°", True), ("90 degrees", "90^\\circ", True),
    ("6.5 \\times 10^{3}", "6500", True), ("6.5 × 10^3", "6500", True), ("1.2e-3", "0.0012", True),
    ("3 \\cdot 10^{-2}", "0.03", True), ("3 \\cdot 10^{-2}", "0.3", False), ("1.8 billion", "1800000000", True),
    # ratios, clocks, bases
    ("3:4", "3 : 4", True), ("3:4", "\\frac{3}{4}", True), ("6:8", "3:4", True), ("4:3", "3:4", False),
    ("1:2:3", "1 : 2 : 3", True), ("1:2:3", "1:2:4", False), ("12:00", "1:00", False),
    ("11:30 \\text{ p.m.}", "11:30 pm", True), ("4210_5", "4210_{5}", True), ("4210", "4210_5", True),
    ("555", "4210_5", False), ("52_8", "52", False), ("70_{10}", "70", True), ("4210_{6}", "4210_5", False),
    # names and choices, words
    ("x=5", "5", True), ("5", "x = 5", True), ("x = 5", "y = 5", False), ("\\text{Area} = 24", "24", True),
    ("x \\in [-2,7]", "[-2, 7]", True), ("f(x) = x^2", "x^2", True), ("y = 2x+3", "2x+3", True),
    ("\\theta = 30^\\circ", "30", True),
    ("(A)", "A", True), ("\\text{(A)}", "A", True), ("A.", "(A)", True), ("\\textbf{(C)}\\ 12", "C", True),
    ("\\textbf{(C)}\\ 12", "12", True),
    ("12", "(C) 12", True), ("(B)", "C", False), ("(B) 12", "(C) 12", False), ("\\text{Evelyn}", "Evelyn", True),
    ("evelyn", "\\text{Evelyn}", True),
    ("\\text{Evan}", "\\text{Evelyn}", False), ("\\text{even}", "\\text{odd}", False),
    ("No solution.", "\\text{no solution}", True),
    ("\\text{June 20}", "June 20", True), ("\\text{none}", "x+1", False), ("{5}", "5", True),
    ("\\mathbf{7}", "7", True),
    # tuples, intervals, sets, lists, plus or minus
    ("(3, -1)", "\\left(3,-1\\right)", True), ("(-1,3)", "(3,-1)", False),
    ("\\left(\\frac{1}{2}, 3\\right)", "(0.5, 3)", True),
    ("[2,5)", "\\left[2, 5\\right)", True), ("(2,5)", "[2,5)", False), ("[2,5]", "[2,5)", False),
    ("2 \\le x < 5", "[2,5)", True),
    ("(-\\infty, 2) \\cup (3, \\infty)", "(3,\\infty)\\cup(-\\infty,2)", True), ("x \\leq 3", "x ≤ 3", True),
    ("x < 3", "x \\le 3", False),
    ("\\{1,2,3\\}", "\\{3,2,1\\}", True), ("3, 2, 1", "1,2,3", True), ("1,2", "1,2,3", False),
    ("3 \\text{ and } 5", "3,5", True),
    ("3 \\text{ or } -3", "-3, 3", True), ("1 \\pm \\sqrt{19}", "1 + \\sqrt{19}, 1 - \\sqrt{19}", True),
    ("\\pm 3", "3,-3", True), ("3", "\\pm 3", False),
    # matrices, roots, pi, complex numbers, expressions, equations
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", True),
    ("\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", True),
    ("\\begin{pmatrix} 2 \\\\ 1 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", False),
    ("\\begin{pmatrix} 1/2 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} \\frac{1}{2} \\\\[2pt] 2 \\end{pmatrix}", True),
    ("\\sqrt{16}", "4", True), ("2\\sqrt{3}", "\\sqrt{12}", True), ("11\\sqrt2", "11\\sqrt{2}", True),
    ("√2", "\\sqrt{2}", True),
    ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt2}{2}", True), ("\\frac{\\pi}{2}", "\\frac12\\pi", True),
    ("π/2", "\\frac{\\pi}{2}", True),
    ("120\\pi \\text{ cm}^2", "120\\pi", True), ("4\\sqrt{3} \\text{ units}", "4\\sqrt{3}", True),
    ("sqrt(2)/2", "\\frac{\\sqrt2}{2}", True), ("3sqrt(5)", "3\\sqrt5", True),
    ("2*pi", "2\\pi", True), ("cos x", "\\cos x", True), ("2\\pi", "6.283185", True), ("y = 2x", "2x - y = 0", True),
    ("\\langle 1, 2 \\rangle", "(1,2)", True),
    ("2\\pi", "6.28", False), ("6+9i", "9i+6", True), ("3-4i", "3+4i", False), ("(x+1)^2", "x^2+2x+1", True),
    ("2x+3", "3+2x", True),
    ("2x+3", "2x-3", False), ("x^2+y^2=4", "y^2+x^2=4", True), ("2^{10}", "1024", True), ("2**10", "1024", True),
    ("210", "2^{10}", False),
    ("10!", "3628800", True), ("\\binom{5}{2}", "10", True), ("5x", "5", False), ("\\log_2 8", "3", True),
    # what math-verify was once seen to take for the same
    ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}", False), ("\\frac{1}{2004!}", "\\frac{1}{2006!}", False),
    ("\\frac{1}{2^{99}}", "0", False),
    ("\\frac{1}{2004!}", "1 000 000", False), ("\\frac{1}{2004!}", "0", False), ("\\sqrt{8}-2\\sqrt{2}", "0", True),
    ("\\sqrt{16}", "\\$4", True), ("\\frac{\\sqrt{121}}{2}", "5\\frac12", True), ("f(2) = 5", "5", True),
    ("1 - \\frac{1}{e}", "1 + \\frac{1}{\\mathrm{e}}", False), ("2021", "\\pm 2021", False),
    ("n=2,3,4", "n=1,2,3", False),
    ("19, 46, \\text{ and } 82", "21, 36, and 82", False), ("D = (0, 1.5)", "D = (0, 1)", False),
    ("\\frac{1}{3 \\cdot 2^{2006}}", "\\frac{2^{2005}+1}{3 \\cdot 2^{2006}}", False),
    ("1, 3, 5, \\ldots, 2n-1", "1, 2, \\ldots, n", False),
    # what is no answer
    ("\\frac{2}{", "3", False), ("\\frac{2}{ 3", "3", False), ("[answer]", "3", False), ("?", "3", False),
    ("<b>3</b>", "4", False),
]  # fmt: skip


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as opened:
        yield opened


def test_answers_as_models_and_golds_write_them(grader: Grader) -> None:
    verdicts = grader.grade([(f"#### {answer}", gold) for answer, gold, _ in CASES])
    wrong = [(case, v) for case, v in zip(CASES, verdicts, strict=True) if v.correct is not case[2]]
    assert wrong == []


def test_one_text_for_one_answer() -> None:
    assert canonical(None) is None
    for one, other in (
        ("\\frac12", "0.50"), ("50\\%", "50"), ("x = 5", "5.0"), ("1{,}000", "10^3 is wrong"), ("(A)", "\\text{A}"),
        ("\\dfrac{x}{2}", "\\frac{ x }{ 2 }"), ("52_{8}", "52_8"), ("Evelyn.", "\\text{evelyn}"),
        ("[2, 5)", "\\left[2,5\\right)"),
    ):  # fmt: skip
        assert (canonical(one) == canonical(other)) is (other != "10^3 is wrong"), (one, other)
    assert [canonical(t) for t in ("0.50", "18 eggs", "\\$1,234", "x+1", "-3/6")] == [
        "1/2",
        "18",
        "1234",
        "x+1",
        "-1/2",
    ]


@given(st.fractions(max_denominator=10**6))
def test_a_fractions_canonical_text_is_the_fraction(value: Fraction) -> None:
    sign, top = ("-" if value < 0 else ""), abs(value.numerator)
    for written in (str(value), f"{sign}\\frac{{{top}}}{{{value.denominator}}}", f"x = {value}"):
        assert canonical(written) == str(value)


def test_numbers_alone_start_no_process() -> None:
    with Grader() as grader:
        verdicts = grader.grade([("A: 18", "18"), ("A: 17", "18"), ("I do not know", "18")])
        assert verdicts == [Verdict("18", True), Verdict("17", False), Verdict(None, False)]
        assert grader.unreadable(["18", "Evelyn", "(A)"]) == []
        assert grader.pool.processes == []


HANGS = ["9^{9^{9}}", "\\sum_{k=1}^{10^{9}} \\sin(k)", "(10^{7})!"]  # each takes math-verify far more than 5 s


def group_of(process: int) -> list[str]:
    """The states of the processes in a group that live."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            stats.append(path.read_text().rpartition(")")[2].split())
    return [state for state, _, group, *_ in stats if int(group) == process and state != "Z"]


def rows_of(answers: list[str], gold: str) -> list[tuple[str, str]]:
    return [(f"\\boxed{{{answer}}}", gold) for answer in answers]


def test_algebra_decides_what_is_no_number_and_a_hang_is_only_wrong() -> None:
    nested = "\\boxed{" + "{" * 5000 + "1" + "}" * 5000 + "}"
    rows = [
        ("\\boxed{\\sqrt{16}}", "4"),
        ("\\boxed{(x+1)^2}", "x^2+2x+1"),
        ("\\boxed{5x}", "5"),
        *rows_of(HANGS, "\\sqrt{7}"),
        ("\\boxed{2\\pi}", "\\pi+\\pi"),  # after the hangs
        (nested, "1"),
        ("\\boxed{__import__('os').getcwd()}", "1"),
        ("\x00\x07<script>1</script>\\boxed{3\u200f}", "3"),
    ]
    with Grader(seconds=1.0) as grader:
        verdicts = grader.grade(rows)
        (process,) = grader.pool.processes  # a handful of rows is no work for two
    assert [v.correct for v in verdicts] == [True, True, False, False, False, False, True, False, False, True]
    assert group_of(process) == []  # ended with the grader


def test_verdicts_do_not_hang_on_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evals.pool, "WORTH_A_PROCESS", 5)
    rows = [row for i in range(12) for row in rows_of([f"\\sqrt{{{i * i}}}", f"\\sqrt{{{i * i + 1}}}"], str(i))]
    found = []
    for workers in (1, 3):
        with Grader(seconds=1.0, workers=workers) as grader:
            found.append(grader.grade([*rows, (f"\\boxed{{{HANGS[0]}}}", "\\sqrt{7}")]))
            assert len(grader.pool.processes) == workers
    assert found[0] == found[1]
    assert [v.correct for v in found[0]] == [True, False] * 12 + [False]


def test_equal_pairs_are_decided_once() -> None:
    with Grader() as grader:
        asked: list[int] = []
        ask = grader.pool.ask
        grader.pool.ask = lambda requests: (asked.append(len(requests)), ask(requests))[1]  # type: ignore[method-assign]
        grader.grade(rows_of(["\\sqrt{9}", "\\sqrt{9}", "$\\sqrt{9}$.", "\\sqrt{16}"], "3"))
        assert grader.equal("\\sqrt{9}", "3")
    assert asked == [2, 0]


def test_a_killed_process_costs_no_row() -> None:
    with Grader() as grader:
        for wanted in ("3", "4"):
            assert grader.equal(f"\\sqrt{{{int(wanted) ** 2}}}", wanted)
            (process,) = grader.pool.processes
            os.killpg(process, signal.SIGKILL)
        assert grader.equal("\\sqrt{25}", "5")


def test_a_late_request_is_wrong_and_the_next_one_is_answered() -> None:
    pool = Pool(seconds=0.001)  # of processor time: no request can be answered
    assert pool.ask([("\\sqrt{2}+x", "x+\\sqrt{2}")] * 3) == [False] * 3
    pool.seconds = 5.0
    assert pool.ask([("\\sqrt{2}+x", "x+\\sqrt{2}"), ("2", "3")]) == [True, False]
    (process,) = pool.processes
    os.killpg(process, signal.SIGSTOP)  # it uses no processor time any more, and does not answer either
    pool.seconds = 0.1
    assert pool.ask([("x+1", "1+x")]) == [False]
    pool.seconds = 5.0
    assert pool.ask([("x+1", "1+x")]) == [True]
    pool.close()
    assert pool.processes == []


def test_a_request_whose_process_dies_twice_is_wrong_and_the_next_one_is_answered() -> None:
    pool = Pool(seconds=60.0, workers=1)
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 2:
            for worker in [w for w in pool._workers if w.request == 0 and w.process.pid not in killed]:
                killed.append(worker.process.pid)
                os.killpg(worker.process.pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    assert pool.ask([("\\sqrt{7}", HANGS[0]), ("x+1", "1+x")]) == [False, True]
    killer.join()
    pool.close()
    assert [group_of(process) for process in killed] == [[], []]


def test_a_gold_that_nothing_can_equal_is_named() -> None:
    golds = [
        "18", "\\frac{", "Evelyn", "", "(A)", "???", "\\sqrt{2}", "\\text{June 20}", "12:00", "4210_{5}", "x^2+",
        "[2,5)", "9" * 2000, "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "{{{", "3\\frac{1}{2}", "\\{1,2\\}",
        "1 \\pm \\sqrt{19}",
    ]  # fmt: skip
    assert [golds[i] for i in unreadable(golds)] == ["\\frac{", "", "???", "x^2+", "9" * 2000, "{{{"]


def test_the_quick_parse_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy
    from math_verify import parser

    from evals import algebra

    def parses() -> list[str]:
        parser.parse_latex_cached.cache_clear()
        parser.extract_latex.cache_clear()
        return [repr(algebra.read(text)) for text in texts]

    texts = [formula(text) for answer, gold, _ in CASES[::3] for text in (answer, gold)]
    whole = parses()
    monkeypatch.setattr(_Latex2Sympy, "create_parser", _Latex2Sympy.create_parser)  # and is put back
    algebra.parse_in_two_stages()
    assert parses() == whole


def test_equal_by_itself() -> None:
    assert equal("1/2", "0.5")
    assert equal("\\frac{\\sqrt{4}}{2}", "1")


HOSTILE = [
    "9" * 10**6, "\\boxed{" * 10**5, "A: " * 3 * 10**5, "<<" * 5 * 10**5, "a" * 999 + "=", "answer is " * 10**5,
    "$" * 10**6, "final answer\n" * 10**5, "final answer" + "\n" * 10**6,
    "\\boxed{" + "{" * 5000 + "1" + "}" * 5000 + "}", "\\text{" * 10**5 + "1" + "}" * 10**5,
    "1" + ",234" * 2 * 10**5 + "5", "\x00" * 10**6, "\ud800" * 1000 + "5", "****" * 10**5, "\\frac" * 10**5,
    "####" * 10**5, "answer is " + " " * 10**6 + "5", "1e" * 3 * 10**5, "</think>" * 10**5, "\\" * 10**6,
    "1/" * 3 * 10**5, "x = " * 10**5, "{" * 10**6, "^\\circ" * 10**5, "\u202e5\u202c", "1:" * 10**5, "-" * 10**6,
    "." * 10**6,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_hostile_texts_take_linear_time(text: str) -> None:
    """A megabyte in time that nobody notices; quadratic time would take hours."""
    for answer in (text, f"\\boxed{{{text[: 10**5]}}}", f"The answer is {text[: 10**5]}", text[:1000]):
        found = extract(answer)
        canonical(found)
        compare(found or "", "3")


LONG = [
    "^" + " " * 10**5 + "a", "\\text{m}^" + " " * 10**5 + "a", "\\\\ " * 50_000 + "a", "A" + " ." * 10**5,
    "5" + " " * 10**5 + "+", "5 and" + " " * 10**5 + "a", "sin^1" + " " * 10**5 + "a", "5" + "\\," * 50_000 + "a",
    "$" * 10**5 + "a", "\\boxed{" * 12_000 + "}" * 12_000, "\\sqrt2" + " " * 9_000 + "a",
]  # fmt: skip


@pytest.mark.parametrize("text", LONG, ids=lambda text: repr(text[:12]))
def test_long_room_between_signs_takes_linear_time(text: str) -> None:
    """In this process, which no time limit ends: squares of these lengths take a minute, and cubes years."""
    begun = time.process_time()
    for answer in (text, f"\\boxed{{{text}}}", f"The answer is {text}", f"<answer>{text}</answer>"):
        canonical(extract(answer))
    compare(text[:10_000], "3")
    formula(text[:10_000])
    assert time.process_time() - begun < 3


def test_hostile_texts_are_graded() -> None:
    texts = [text[:300] for text in HOSTILE] + [
        "{" * 900,
        "9**9**9",
        "<img src=x onerror=alert(1)>",
        "\u202e3\u202c\\sqrt{2}",
        "\\input{/etc/passwd}",
    ]
    with Grader(seconds=0.5) as grader:
        assert not any(v.correct for v in grader.grade(rows_of(texts, "\\sqrt{7}+1")))
    assert extract("x" * 10**6 + "\n#### 5") == "5"
    assert number("5 " + "a" * 990 + "=") is None


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
