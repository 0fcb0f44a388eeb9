"""math-verify behind a pipe: one JSON request per line in, one JSON verdict per line out. Run as a script, by path.

It imports nothing of this project, so that it runs wherever the interpreter has math-verify. The import takes
seconds and is done once: a fork of this process answers requests, and if one kills it, a new fork answers the next.
Time limits are in the fork's processor time, so that a verdict does not depend on the machine's load.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import sys
from typing import Any, NoReturn

MEMORY = 2 << 30  # bytes of address space: a power tower must not exhaust the machine's memory
DIGITS = 30  # to which values are compared
# Values of the letters, in 97ths: both signs, small and large, so that |x - 5| and 5 - x differ at some point.
POINTS = (
    (31, 173, -59, 211, 83, 149), (-67, 41, 127, 53, -191, 109), (251, -322, 971, -889, 637, -131),
    (-1239, 1085, 202, 717, 1161, 443), (9001, 3127, -2203, 5419, 811, 7307),
    (40009, -30011, 50021, 10007, 20011, 60013),
    (-90001, 70001, 20021, -40031, 80021, 50033),
)  # fmt: skip
LARGEST = 5000  # digits before the point: 2^{2019} + 1 and 2^{2019} - 1 differ in the last of them
ENOUGH = 2  # points at which both must be real and agree
SMOOTH = frozenset(  # functions that a few points distinguish; floor is not one
    (
        "exp", "log", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "asec", "acsc", "sinh",
        "cosh", "tanh", "coth", "asinh", "acosh", "atanh", "Abs", "factorial", "binomial",
    )
)  # fmt: skip
APART = 1e-5  # relative difference; math-verify rounds to absolute digits, so all tiny numbers are equal to it


def read(text: str) -> list[Any]:
    """math-verify's parse of a formula; [] if it cannot parse it. Its signal-based timeouts are off."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # Units are removed before: math-verify would take "t", "h" and "c" in "7+2t" and "\\pi r^2 h" for units.
    dress = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
    config = [LatexExtractionConfig(normalization_config=dress)]
    parsed: list[Any] = parse(f"${text}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None)
    return parsed


def verdict(gold: str, answer: str | None) -> bool:
    """Whether ``answer`` equals ``gold``; if ``answer`` is None, whether math-verify can parse the gold.

    Two expressions of numbers and letters are compared by value first, to 30 digits: math-verify simplifies their
    difference, which takes from milliseconds to minutes.
    """
    from math_verify import verify

    expected = read(gold)
    if answer is None or not expected:
        return bool(expected)
    given = read(answer)
    if not given:
        return False
    decided = same_values(expected[0], given[0])
    if decided is not None:
        return decided
    equal = verify(expected, given, allow_set_relation_comp=True, timeout_seconds=None)
    return bool(equal) and not _apart(expected[0], given[0])


def same_values(gold: Any, answer: Any) -> bool | None:
    """Whether two expressions have the same value at all of :data:`POINTS` where both are real.

    None if undecided: for anything but sums, products, powers and elementary functions of exact numbers and letters,
    for too many letters, or if both are real at too few points. Agreement at a few fixed points is no proof, but
    different short answers that agree to 30 digits were never seen (Schwartz 1980).
    """
    from sympy import Integer

    if not (_elementary(gold) and _elementary(answer)):
        return None
    letters = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if not letters:
        return _same_number(gold, answer)
    if gold == answer:
        return True
    agreed = 0
    for point in POINTS:
        at = {letter: Integer(p) / 97 for letter, p in zip(letters, point, strict=False)}
        one, two = gold.subs(at), answer.subs(at)
        values = _value(one), _value(two)
        if all(value is not None and value.is_real for value in values):
            same = _same_number(one, two)
            if same is False:
                return False
            agreed += same is True
    return True if agreed >= ENOUGH and len(letters) <= len(POINTS[0]) else None


def _elementary(expression: Any) -> bool:
    """Whether it consists of exact numbers, letters and :data:`SMOOTH` functions: no decimals, sums over an index or
    unknown functions."""
    import sympy as sp

    kinds = (sp.Add, sp.Mul, sp.Pow, sp.Rational, sp.NumberSymbol, sp.Symbol, sp.UnevaluatedExpr, type(sp.I))
    return isinstance(expression, sp.Expr) and all(
        isinstance(part, kinds) or (isinstance(part, sp.Function) and type(part).__name__ in SMOOTH)
        for part in sp.preorder_traversal(expression)
    )


def _value(expression: Any, digits: int = DIGITS) -> Any:
    """Its value to ``digits`` digits, with real odd roots of negative numbers; None if it has none."""
    from sympy import Expr, I, Integer, Pow

    if not expression.has(I):
        expression = expression.replace(
            lambda e: (
                isinstance(e, Pow) and e.exp.is_Rational and e.exp.q % 2 == 1 and e.exp.q > 1 and _negative(e.base)
            ),
            lambda e: (-1) ** e.exp.p * Pow(-e.base, e.exp),
        )
    value = expression.evalf(digits)
    if not isinstance(value, Expr) or not value.is_number or not value.is_finite:
        return None
    real, imaginary = (part if _known(part) else Integer(0) for part in value.as_real_imag())
    return real + I * imaginary


def _known(part: Any) -> bool:
    """Whether a part has significant digits; if terms cancel it has none and counts as zero."""
    return not part.is_Float or part._prec > 3 * DIGITS / 2  # bits


def _negative(base: Any) -> bool:
    return bool(base.is_number and base.is_extended_real and base.evalf(DIGITS) < 0)


def _same_number(one: Any, two: Any, digits: int = DIGITS) -> bool | None:
    """Whether two constants agree in all but the last five of ``digits``, and large ones also after the point."""
    from sympy import Integer, log

    left, right = _value(one, digits), _value(two, digits)
    if left is None or right is None:
        return None
    if abs(left - right) > Integer(10) ** (5 - digits) * abs(left):
        return False
    whole = int(log(abs(left), 10).evalf(15)) if left else 0
    if whole + DIGITS // 2 <= digits:
        return True
    return _same_number(one, two, whole + DIGITS) if whole < LARGEST else None


def _apart(gold: Any, answer: Any) -> bool:
    """Whether two constants differ by more than rounding, as 1/2^98 and 1/2^99 do."""
    from sympy import Expr

    constants = all(isinstance(value, Expr) and value.is_number for value in (gold, answer))
    if not constants or gold == answer:
        return False
    difference, size = abs(answer - gold).evalf(15), abs(gold).evalf(15)
    if not size:
        return answer.is_zero is False
    return bool(difference.is_finite and difference > APART * size)


def parse_in_two_stages() -> None:
    """Make math-verify's parser try ANTLR's fast SLL prediction first, and full LL after a syntax error.

    Input that SLL accepts has the same parse under LL (Parr, Harwell and Fisher 2014, "Adaptive LL(*) Parsing"), in a
    third of the time, for tuples and intervals a tenth. A version of math-verify without this hook is left unchanged.
    """
    from antlr4.atn.PredictionMode import PredictionMode
    from latex2sympy2_extended import latex2sympy2

    converter: Any = getattr(latex2sympy2, "_Latex2Sympy", None)
    create = getattr(converter, "create_parser", None)
    if create is None:
        return

    def create_parser(self: Any, text: str) -> Any:
        parser = create(self, text)
        quick = parser.math

        def math() -> Any:
            parser._interp.predictionMode = PredictionMode.SLL
            try:
                return quick()
            except Exception:  # raised by the syntax error listener
                return create(self, text).math()

        parser.math = math
        return parser

    converter.create_parser = create_parser


def answer_requests() -> NoReturn:
    """Run in a fork: answer requests until stdin ends. The default action of the time limit's signal kills the fork."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        try:
            equal = verdict(request["gold"], request["answer"])
        except Exception:  # sympy raises many types: an answer that cannot be parsed or compared is wrong
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps({"verdict": equal}), flush=True)
    os._exit(0)


def main() -> NoReturn:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the parent may ignore it, which is inherited
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    parse_in_two_stages()
    verdict("\\sqrt{4}", "2")  # imports and compiles the grammar before the first time limit starts
    gc.freeze()  # a third of the time went into collecting permanent objects
    gc.set_threshold(50_000, 20, 100)
    print(json.dumps({"ready": True}), flush=True)
    while True:
        fork = os.fork()
        if not fork:
            answer_requests()
        _, status = os.waitpid(fork, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            os._exit(0)
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
        print(json.dumps({"verdict": None, "late": late}), flush=True)


if __name__ == "__main__":
    main()
