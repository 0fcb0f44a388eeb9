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
APART = 1e-5  # relative; math-verify rounds to absolute digits, to which any two tiny numbers are equal


def read(text: str) -> list[Any]:
    """What math-verify makes of a formula: [] where it can make nothing of it. Its own signal timeouts stay off."""
    from math_verify import LatexExtractionConfig, parse

    found: list[Any] = parse(
        f"${text}$", extraction_config=[LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
    )
    return found


def verdict(gold: str, answer: str | None) -> bool:
    """Whether math-verify holds ``answer`` equal to ``gold``; without an answer, whether it can read the gold."""
    from math_verify import verify

    expected = read(gold)
    if answer is None or not expected:
        return bool(expected)
    given = read(answer)
    equal = verify(expected, given, allow_set_relation_comp=True, timeout_seconds=None)
    return bool(equal) and not _apart(expected[0], given[0])


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
