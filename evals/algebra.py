"""math-verify behind a pipe: one JSON request a line in, one JSON verdict a line out. Run as a script, by path.

It imports nothing of this project, so that it starts wherever the interpreter has math-verify. The import takes
seconds, so it is done once: a fork of this process answers, and may die of any request; the next fork answers the
next one. Time is the fork's own processor time, so that a verdict does not hang on what else the machine does.
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

MEMORY = 2 << 30  # bytes of address space: a power tower must not take the machine's memory
DIGITS = 30  # to which values are compared
# Where letters are set, in 97ths: either sign, small and large, so that |x - 5| and 5 - x part somewhere.
POINTS = (
    (31, 173, -59, 211, 83, 149), (-67, 41, 127, 53, -191, 109), (251, -322, 971, -889, 637, -131),
    (-1239, 1085, 202, 717, 1161, 443), (9001, 3127, -2203, 5419, 811, 7307),
    (40009, -30011, 50021, 10007, 20011, 60013),
    (-90001, 70001, 20021, -40031, 80021, 50033),
)  # fmt: skip
LARGEST = 5000  # digits before the point: 2^{2019} + 1 and 2^{2019} - 1 part in the last of them
ENOUGH = 2  # points at which both are real
SMOOTH = frozenset(  # functions that are told apart by their values at a few points; a floor is not
    (
        "exp", "log", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "asec", "acsc", "sinh",
        "cosh", "tanh", "coth", "asinh", "acosh", "atanh", "Abs", "factorial", "binomial",
    )
)  # fmt: skip
APART = 1e-5  # relative; math-verify rounds to absolute digits, to which any two tiny numbers are equal


def read(text: str) -> list[Any]:
    """What math-verify makes of a formula: [] where it can make nothing of it. Its own signal timeouts stay off."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # Units are left out before this: its own list takes "t", "h" and "c" for them, in "7+2t" and in "\\pi r^2 h".
    dress = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
    config = [LatexExtractionConfig(normalization_config=dress)]
    found: list[Any] = parse(f"${text}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None)
    return found


def verdict(gold: str, answer: str | None) -> bool:
    """Whether ``answer`` is equal to ``gold``; without an answer, whether math-verify can read the gold.

    Two expressions of numbers and letters are compared by their values first, to 30 digits: math-verify's way, to
    simplify their difference, takes from milliseconds to minutes.
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
    """Whether two expressions have the same value wherever both have one that is real, at points of either sign.

    None where that decides nothing: for anything but sums, products, powers and elementary functions of exact numbers
    and letters; for different letters; where they are seldom real. Agreement at a few points that nobody chose is no
    proof, but no two answers of some characters were ever seen to differ and agree to 30 digits (Schwartz 1980).
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
    """Whether all of it is exact and has a value: no decimals (they are rounded), no sums, no unknown functions."""
    import sympy as sp

    kinds = (sp.Add, sp.Mul, sp.Pow, sp.Rational, sp.NumberSymbol, sp.Symbol, sp.UnevaluatedExpr, type(sp.I))
    return isinstance(expression, sp.Expr) and all(
        isinstance(part, kinds) or (isinstance(part, sp.Function) and type(part).__name__ in SMOOTH)
        for part in sp.preorder_traversal(expression)
    )


def _value(expression: Any, digits: int = DIGITS) -> Any:
    """The number that it is, to ``digits`` digits, with real odd roots of negative numbers; None where it has none."""
    from sympy import Expr, I, Integer, Pow

    if not expression.has(I):
        expression = expression.replace(
            lambda e: (
                isinstance(e, Pow) and e.exp.is_Rational and e.exp.q % 2 == 1 and e.exp.q > 1 and _negative(e.base)
            ),
            lambda e: (-1) ** e.exp.p * Pow(-e.base, e.exp),
        )
    found = expression.evalf(digits)
    if not isinstance(found, Expr) or not found.is_number or not found.is_finite:
        return None
    real, imaginary = (part if _known(part) else Integer(0) for part in found.as_real_imag())
    return real + I * imaginary


def _known(part: Any) -> bool:
    """Whether a part has digits that hold: terms that cancel leave a number without any, and that is zero."""
    return not part.is_Float or part._prec > 3 * DIGITS / 2  # bits


def _negative(base: Any) -> bool:
    return bool(base.is_number and base.is_extended_real and base.evalf(DIGITS) < 0)


def _same_number(one: Any, two: Any, digits: int = DIGITS) -> bool | None:
    """Whether two constants agree in all but the last five of ``digits``, and large ones in those behind the point."""
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
    """Whether two constants differ by more than rounding does: 1/2^98 and 1/2^99."""
    from sympy import Expr

    constants = all(isinstance(value, Expr) and value.is_number for value in (gold, answer))
    if not constants or gold == answer:
        return False
    difference, size = abs(answer - gold).evalf(15), abs(gold).evalf(15)
    if not size:
        return answer.is_zero is False
    return bool(difference.is_finite and difference > APART * size)


def parse_in_two_stages() -> None:
    """Has math-verify's parser try ANTLR's quick SLL prediction first, and full LL where that finds a syntax error.

    What SLL accepts it parses as LL does (Parr, Harwell and Fisher 2014, "Adaptive LL(*) Parsing"), in a third of the
    time, and tuples and intervals in a tenth. A version without this entry parses as it always did.
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
            except Exception:  # what the listener for syntax errors raises
                return create(self, text).math()

        parser.math = math
        return parser

    converter.create_parser = create_parser


def answer_requests() -> NoReturn:
    """A fork's work: answers until the requests end. The limit's signal, left to its default, ends it sooner."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        try:
            found = verdict(request["gold"], request["answer"])
        except Exception:  # of sympy's many kinds: what cannot be parsed or compared equals nothing
            found = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps({"verdict": found}), flush=True)
    os._exit(0)


def main() -> NoReturn:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which the parent may ignore
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    parse_in_two_stages()
    verdict("\\sqrt{4}", "2")  # imports, and compiles its grammar, before the first clock starts
    gc.freeze()  # a third of the time went into looking through what stays, and the little that parsing leaves
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
