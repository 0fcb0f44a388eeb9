"""The command ``grade``: grades completions against gold answers with the grader of a study, without a study.

Rows are read twice: all are checked before the first is graded. A row keeps all its bytes; "extracted" and "correct"
are inserted before its closing brace. Output goes to a temporary file beside the target, which is then renamed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from evals.answers import Grader, Verdict
from evals.json_rows import once
from execution.errors import DONE, Interrupted, UserError
from orchestrator.commands.process import stoppable
from report.escape import tell

ADDED = ("extracted", "correct")
CHUNK_ROWS, CHUNK_BYTES = 10_000, 64 << 20  # limits of a batch, whichever is reached first
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class _Row:
    line: bytes
    completion: str
    answer: str


def main(options: argparse.Namespace) -> int:
    """Grade rows; returns the exit code. Only rows go to stdout, messages to stderr."""
    with stoppable():
        grade(options.rows, options.out, lambda line: tell(line, sys.stderr))
    return DONE


def grade(path: Path, out: Path | None, progress: Callable[[str], None]) -> None:
    """Write the rows of ``path`` with their verdicts to ``out``, or to stdout; messages go to ``progress``.

    ``UserError`` names file and line of an invalid row, before anything is written.
    """
    begun = time.monotonic()
    with _output(path, out) as stream, Grader() as grader:
        total, as_text = _check(path, grader)
        done = right = missing = 0
        for rows in _chunks(path):
            for row, verdict in zip(rows, grader.grade([(r.completion, r.answer) for r in rows]), strict=True):
                stream.write(_graded(row, verdict))
                right += verdict.correct
                missing += verdict.extracted is None
            done += len(rows)
            if total > CHUNK_ROWS:
                progress(f"{done}/{total} graded")
    share = f"{right / total:.1%}"
    took = f"{time.monotonic() - begun:.1f} s"
    progress(f"{total} rows: {right} correct ({share}), {missing} without an answer, {took}{as_text}")


def _check(path: Path, grader: Grader) -> tuple[int, str]:
    """The number of rows, and a note on gold answers compared as text; ``UserError`` for the first invalid row."""
    total, golds = 0, dict[str, int]()
    for number, row in _rows(path):
        total += 1
        golds.setdefault(row.answer, number)
    if not total:
        raise UserError(f"{path} has no rows")
    answers = list(golds)
    for index in grader.unreadable(answers)[:1]:
        gold = answers[index]
        raise UserError(
            f"{path}:{golds[gold]}: the answer {gold[:60]!r} can be read neither as a number nor as a formula"
        )
    texts = [answers[index] for index in grader.as_text(answers)]
    if not texts:
        return total, ""
    named = ", ".join(f"{gold[:40]!r} of line {golds[gold]}" for gold in texts[:3])
    return total, f"; gold answers that cannot be parsed, compared as text: {len(texts)} ({named})"


def _chunks(path: Path) -> Iterator[list[_Row]]:
    rows: list[_Row] = []
    size = 0
    for _, row in _rows(path):
        rows.append(row)
        size += len(row.line)
        if len(rows) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _rows(path: Path) -> Iterator[tuple[int, _Row]]:
    """(line number, row) for each line that is not blank."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _row(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _row(line: bytes, where: str) -> _Row:
    if line.startswith(GZIP):
        raise UserError(f"{where}: this is gzip: unpack it first")
    if where.endswith(":1") and line.lstrip().startswith(b"["):
        raise UserError(f"{where}: this is a list: write one row per line, as jq -c '.[]' does")
    try:
        fields = json.loads(line.decode("utf-8-sig"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise UserError(f"{where}: not a JSON object in UTF-8 ({error})") from None
    if not isinstance(fields, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(fields).__name__}")
    for name in ADDED:
        if name in fields:
            raise UserError(f"{where}: the field {name!r} already exists: rename or remove it")
    completion = fields.get("completion")
    if not isinstance(completion, str):
        raise UserError(f"{where}: the field 'completion' must be a string")
    return _Row(line, completion, _answer(fields.get("answer"), where))


def _answer(value: Any, where: str) -> str:
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: the field 'answer' must be a number or a non-empty string")
    return value


def _graded(row: _Row, verdict: Verdict) -> bytes:
    added = json.dumps(dict(zip(ADDED, (verdict.extracted, verdict.correct), strict=True)))
    return row.line.strip()[:-1].rstrip() + b", " + added[1:].encode() + b"\n"


@contextmanager
def _output(path: Path, out: Path | None) -> Iterator[BinaryIO]:
    """The stream for the rows. A file is renamed to its final name when all is done, and removed after an error."""
    try:
        known = path.is_file()
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)[:200]!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not known:
        why = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
        raise UserError(f"{path} {why}: name a JSONL file of rows")
    if out is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at exit
            raise Interrupted("the reader of the output has exited") from None
        return
    aside, stream, target = _open_aside(path, out)
    try:
        with stream:
            yield stream
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _open_aside(path: Path, out: Path) -> tuple[Path, BinaryIO, Path]:
    """(temporary path, its stream, final path) for ``out``, links resolved; ``UserError`` if it cannot be written."""
    try:
        target = out.resolve()
        if target.exists() and not target.is_file():
            raise UserError(f"--out {out} is {'a folder' if target.is_dir() else 'not a regular file'}: name a file")
        if target.exists() and target.samefile(path):
            raise UserError(f"--out {out} is the input file: name another file")
        aside = target.with_name(f".grade-{os.getpid()}.aside")
        return aside, aside.open("xb"), target
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, a loop of links
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--out {str(out)[:200]} cannot be written: {reason}") from None
