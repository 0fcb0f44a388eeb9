"""Verdicts: is the answer that a completion gives the gold answer?

Numbers are compared exactly, as fractions. What is no number ("x+1", "\\sqrt{2}", "(3, 4)") goes to math-verify in a
process of its own, which is started when the first such row comes up and killed when a row takes too long.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evals.exact import is_percent, number, plain
from evals.extraction import extract

__all__ = ["Grader", "Verdict", "compare", "equal", "extract"]

LONGEST_FORMULA = 1000  # characters; beyond it a text is no answer to a problem with a short gold
ROW_SECONDS = 5.0
START_SECONDS = 120.0  # math-verify's import takes 1-3 s on an idle core


@dataclass(frozen=True)
class Verdict:
    """``extracted``: the answer found in a completion, or None; ``correct``: whether it equals the gold."""

    extracted: str | None
    correct: bool


def compare(extracted: str, gold: str) -> bool | None:
    """True or False where exact numbers or equal text decide; None where algebra has to.

    A percentage equals both its number and its hundredth: "50%" equals "50" and "0.5".
    """
    a, b = number(extracted), number(gold)
    if a is not None and b is not None:
        ratios = {1} | ({100} if is_percent(extracted) != is_percent(gold) else set())
        return any(a == b * ratio if is_percent(extracted) else a * ratio == b for ratio in ratios)
    left, right = ("".join(plain(text).split()) for text in (extracted, gold))
    if left == right:
        return True
    if max(len(left), len(right)) > LONGEST_FORMULA or not left or not right:
        return False
    if b is not None and not any(c.isdigit() or c == "\\" for c in extracted):
        return False  # words alone are no number
    return None


def equal(extracted: str, gold: str) -> bool:
    """Whether two answers are the same, by exact numbers first and math-verify else (up to 5 s, plus its start)."""
    decided = compare(extracted, gold)
    if decided is not None:
        return decided
    with Grader() as grader:
        return grader.equal(extracted, gold)


class Grader:
    """Grades rows one after another; keeps at most one math-verify process, and none until a row needs it.

    Use it in a ``with`` statement. A row that takes longer than ``seconds``, or that kills the process, is wrong.
    """

    def __init__(self, seconds: float = ROW_SECONDS) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def grade(self, rows: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts of (completion, gold answer) pairs, in order."""
        return [self._verdict(completion, gold) for completion, gold in rows]

    def equal(self, extracted: str, gold: str) -> bool:
        """As ``answers.equal``, with this grader's process."""
        decided = compare(extracted, gold)
        return self._algebra(extracted, gold) if decided is None else decided

    def close(self) -> None:
        """Ends the process, if there is one. The grader may be used again."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _verdict(self, completion: str, gold: str) -> Verdict:
        extracted = extract(completion)
        return Verdict(extracted, extracted is not None and self.equal(extracted, gold))

    def _algebra(self, extracted: str, gold: str) -> bool:
        request = {"gold": plain(gold), "answer": plain(extracted), "seconds": self.seconds}
        try:
            process = self._process or self._start()
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            return bool(self._reply(process, self.seconds)["correct"])
        except (TimeoutError, BrokenPipeError):
            self.close()
            return False

    def _start(self) -> subprocess.Popen[bytes]:
        script = str(Path(__file__).with_name("algebra.py"))
        # -P keeps this package's folder off the child's path; what an engine preloads is not for the child.
        environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            self._reply(self._process, START_SECONDS)
        except TimeoutError as error:
            self.close()
            raise RuntimeError("math-verify does not start; try: python -c 'import math_verify'") from error
        return self._process

    def _reply(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        """The process's next line; TimeoutError where it is late or the process has ended."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(seconds) else b""
        if not line:
            raise TimeoutError(f"no verdict within {seconds:g} s")
        return dict(json.loads(line))
