"""math-verify behind a pipe: one JSON request a line in, one JSON verdict a line out. Run as a script, by path.

It imports nothing of this project, so that it starts wherever the interpreter has math-verify, and it may be killed
at any time. An alarm ends it on its own should its parent have died meanwhile.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

MEMORY = 4 << 30  # bytes of address space: a power tower must not take the machine's memory


def verdict(gold: str, answer: str) -> bool:
    """Whether math-verify holds ``answer`` equal to ``gold``; its own signal timeouts stay off."""
    from math_verify import parse, verify

    parsed = [parse(f"${text}$", parsing_timeout=None) for text in (gold, answer)]
    return bool(all(parsed) and verify(parsed[0], parsed[1], timeout_seconds=None))


def main() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    verdict("1", "1")  # imports and compiles its grammar before the first clock starts
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 1)  # the default action ends the process
        try:
            correct = verdict(request["gold"], request["answer"])
        except (MemoryError, RecursionError, ValueError, ArithmeticError, TypeError, AttributeError):
            correct = False  # what cannot be parsed or compared equals nothing
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"correct": correct}), flush=True)


if __name__ == "__main__":
    main()
