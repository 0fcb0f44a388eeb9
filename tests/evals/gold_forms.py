"""Gold answers in the forms that DeepScaleR and MATH have, made by number: 200 of each form, with their own rewriting.

``made(form)`` yields (gold, the same answer written otherwise, another answer). Golds of one form are all different.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction

MANY = 200
Case = tuple[str, str, str]

PAIRS = [(a, b) for b in range(2, 60) for a in range(1, b) if math.gcd(a, b) == 1]  # of a proper fraction


def fraction(i: int) -> Case:
    a, b = PAIRS[i]
    return f"\\frac{{{a}}}{{{b}}}", f"{2 * a}/{2 * b}", f"\\frac{{{b}}}{{{a + b}}}"


def negative_fraction(i: int) -> Case:
    a, b = PAIRS[i]
    return f"-\\frac{{{a}}}{{{b}}}", f"\\dfrac{{-{a}}}{{{b}}}", f"\\frac{{{a}}}{{{b}}}"


def mixed_number(i: int) -> Case:
    a, b = PAIRS[i]
    return f"{i % 9 + 1}\\frac{{{a}}}{{{b}}}", str(Fraction(a, b) + i % 9 + 1), f"{i % 9 + 2}\\frac{{{a}}}{{{b}}}"


def point(i: int) -> Case:
    return f"({i},{i % 7})", f"\\left( {i}, {i % 7}.0 \\right)", f"({i % 7 + 1},{i})"


def interval(i: int) -> Case:
    ends = ("(", "]") if i % 2 else ("[", ")")
    left, right = -i - 1, 2 * i
    other = f"{'[' if i % 2 else '('}{left},{right}{ends[1]}"
    return f"{ends[0]}{left},{right}{ends[1]}", f"\\left{ends[0]}{left}, {right}\\right{ends[1]}", other


def half_line(i: int) -> Case:
    return f"(-\\infty,{i}]", f"\\left(-\\infty, {i}\\right]", f"(-\\infty,{i})"


def polynomial(i: int) -> Case:
    return f"x^2+{i + 2}x+{i + 1}", f"(x+1)(x+{i + 1})", f"x^2+{i + 2}x+{i + 2}"


def with_unit(i: int) -> Case:
    return f"{i + 2}\\text{{ cm}}", f"{i + 2} cm", f"{i + 3} cm"


def money(i: int) -> Case:
    return f"\\${i + 5}", f"{i + 5} dollars", f"\\${i + 5}.50"


def surd(i: int) -> Case:
    return f"{i + 2}\\sqrt{{3}}", f"\\sqrt{{{3 * (i + 2) ** 2}}}", f"{i + 2}\\sqrt{{2}}"


def fraction_of_surd(i: int) -> Case:
    return (
        f"\\frac{{{i + 1}\\sqrt{{2}}}}{{2}}",
        f"\\frac{{{i + 1}}}{{\\sqrt{{2}}}}",
        f"\\frac{{{i + 1}\\sqrt{{3}}}}{{2}}",
    )


def multiple_of_pi(i: int) -> Case:
    return f"{i + 2}\\pi", f"\\pi \\cdot {i + 2}", f"{i + 3}\\pi"


ENDS = ("ton", "ric", "na", "dy", "vin", "la", "so", "mer")
NAMES = [f"{a}{b}{c}" for a in "BDKMR" for b in ("ar", "el", "in", "on", "ul") for c in ENDS]


def text(i: int) -> Case:
    return f"\\text{{{NAMES[i]}}}", NAMES[i].lower(), NAMES[(i + 1) % MANY]


def choice(i: int) -> Case:
    letter = "ABCDE"[i % 5]
    return f"\\text{{({letter})}} {i + 2}", f"({letter})", "ABCDE"[(i + 1) % 5]


def matrix(i: int) -> Case:
    rows = f"{i} & 1 \\\\ 2 & {i + 1}"
    return (
        f"\\begin{{pmatrix}} {rows} \\end{{pmatrix}}",
        f"\\begin{{bmatrix}}{rows}\\end{{bmatrix}}",
        f"\\begin{{pmatrix}} 2 & {i + 1} \\\\ {i} & 1 \\end{{pmatrix}}",
    )


def percent(i: int) -> Case:
    return f"{i + 1}\\%", f"{(i + 1) / 100:g}", f"{i + 2}\\%"


def finite_set(i: int) -> Case:
    return f"\\{{{i},{i + 2},{2 * i + 5}\\}}", f"\\{{{2 * i + 5}, {i}, {i + 2}\\}}", f"\\{{{i},{i + 3},{2 * i + 5}\\}}"


def angle(i: int) -> Case:
    return f"{i + 1}^\\circ", f"{i + 1} degrees", f"{i + 2}^{{\\circ}}"


def bare_list(i: int) -> Case:
    return f"{i},{i + 1},{i + 3}", f"{i}, {i + 1}, {i + 3}", f"{i},{i + 1},{i + 4}"


def thousands(i: int) -> Case:
    return f"{i + 1},{i:03}", f"{(i + 1) * 1000 + i}", f"{(i + 1) * 1000 + i + 1}"


def decimal(i: int) -> Case:
    return f"{i}.{i % 90 + 10}", str(Fraction(f"{i}.{i % 90 + 10}")), f"{i}.{i % 90 + 11}"


def power(i: int) -> Case:
    return f"2^{{{i + 3}}}", f"{2 ** (i + 3)}" if i < 40 else f"2 \\cdot 2^{{{i + 2}}}", f"2^{{{i + 4}}}"


def complex_number(i: int) -> Case:
    return f"{i + 1}+{i + 2}i", f"{i + 2}i + {i + 1}", f"{i + 1}-{i + 2}i"


def equation(i: int) -> Case:
    return f"x={i}", f"{i}", f"x={i + 1}"


FORMS: dict[str, Callable[[int], Case]] = {
    each.__name__: each
    for each in (
        fraction, negative_fraction, mixed_number, point, interval, half_line, polynomial, with_unit, money, surd,
        fraction_of_surd, multiple_of_pi, text, choice, matrix, percent, finite_set, angle, bare_list, thousands,
        decimal, power, complex_number, equation,
    )
}  # fmt: skip

# What no grader can check: nothing there, no sign of meaning, or a formula that breaks off.
BROKEN = ("", " ", "???", "\\frac{1}{", "x^2+", "(\\frac{3}{", "\\sqrt{2", "9" * 2000)


def made(form: str) -> Iterator[Case]:
    return map(FORMS[form], itertools.islice(itertools.count(), MANY))
