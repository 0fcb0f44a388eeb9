"""A file of rollouts, read row by row, so that whatever is wrong with it is named with its line."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.answers import canonical
from orchestrator.errors import UserError, first_line

LARGEST = 1e30  # size of a reward: losses are float32


@dataclass(frozen=True)
class Row:
    """One completion. ``reward`` is None where the file gives none."""

    problem_id: str
    problem: str
    answer: str
    completion: str
    teacher: str
    reward: float | None


def read_rollouts(path: Path, draw: int | None = None, seed: int = 0) -> list[Row]:
    """All rows of a JSONL or Parquet file, or those of a fixed ``draw`` of problems, in the file's order.

    ``UserError`` names file and line (for Parquet: row) of the first bad row.
    """
    try:
        if not path.is_file():
            raise UserError(f"rollouts.path: {path} is not there: name a JSONL or Parquet file of rollouts")
        records = _parquet(path) if path.suffix == ".parquet" else _jsonl(path)
        rows = [row_of(record, where) for where, record in records]
    except OSError as error:
        raise UserError(f"rollouts.path: {str(path)[:200]} cannot be read: {error.strerror}") from None
    return whole(rows, str(path), draw, seed)


def whole(rows: list[Row], source: str, draw: int | None, seed: int) -> list[Row]:
    """The rows of ``source``, or those of a fixed ``draw`` of problems; ``UserError`` where they are at odds."""
    if not rows:
        raise UserError(f"{source} holds no rollouts")
    if len({row.reward is None for row in rows}) > 1:
        raise UserError(f"{source}: some rows have a reward and some have none: give all or none")
    told: dict[str, Row] = {}
    for row in rows:
        first = told.setdefault(row.problem_id, row)
        same = first.answer == row.answer or canonical(first.answer) == canonical(row.answer)
        if first.problem != row.problem or not same:
            called = " ".join(row.problem_id.split())[:80]
            raise UserError(f"{source}: problem_id {called} stands for two problems or answers: make ids distinct")
    if draw is None:
        return rows
    problems = list(dict.fromkeys(row.problem_id for row in rows))
    if draw > len(problems):
        raise UserError(f"rollouts.draw: {draw} problems asked for, {source} holds {len(problems)}")
    kept = set(random.Random(f"rollouts {seed}").sample(problems, draw))
    return [row for row in rows if row.problem_id in kept]


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                yield f"{path}, line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not a JSON object ({error})") from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({first_line(error)})") from None
    for number, record in enumerate(records, 1):
        yield f"{path}, row {number}", record


def row_of(record: Any, where: str) -> Row:
    """A record as a row; ``UserError`` says what is wrong with it, and ``where`` it stands."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: a row is an object with problem, answer, completion")
    for name in ("problem", "answer", "completion"):
        if name not in record:
            raise UserError(f"{where}: {name} is missing; a row has problem, answer, completion")
    texts = {}
    for name in ("problem", "answer", "completion"):
        value = record[name]
        if name == "answer" and isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise UserError(f"{where}: {name} must be text, not {type(value).__name__}")
        texts[name] = _whole(value, name, where)
    for name in ("problem", "answer"):
        if not texts[name].strip():
            raise UserError(f"{where}: {name} is empty")
    reward = record.get("reward")
    if reward is not None and not (isinstance(reward, int | float) and abs(reward) <= LARGEST):
        raise UserError(f"{where}: reward must be a number (0 or 1 from a verifier), not {reward!r}")
    problem_id, teacher = record.get("problem_id"), record.get("teacher")
    return Row(
        problem_id=_whole(str(texts["problem"] if problem_id in (None, "") else problem_id), "problem_id", where),
        teacher=_whole(str("unnamed" if teacher in (None, "") else teacher), "teacher", where),
        reward=None if reward is None else float(reward),
        **texts,
    )


def _whole(text: str, name: str, where: str) -> str:
    """The text; ``UserError`` where it cannot be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {name} holds half of a character (a lone surrogate): remove it") from None
    return text
