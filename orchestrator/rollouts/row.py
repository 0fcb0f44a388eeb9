"""One completion of a problem as its source gives it, with checks that name the place of an error."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from evals.answers import canonical
from execution.errors import UserError
from orchestrator.rollouts.dataset import normal

LARGEST = 1e30  # largest absolute reward: losses are float32
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", re.ASCII)
TRUTH = {"true": 1.0, "false": 0.0}
NO_GOLD = "nan"  # what a missing value becomes in a table of numbers


@dataclass(frozen=True)
class Row:
    """One completion. ``reward`` is None if the source has none."""

    problem_id: str
    problem: str
    answer: str
    completion: str
    teacher: str
    reward: float | None


def whole(rows: list[Row], source: str, draw: int | None, seed: int) -> list[Row]:
    """The rows of ``source``, or those of a fixed ``draw`` of problems; ``UserError`` if they are inconsistent."""
    if not rows:
        raise UserError(f"{source} holds no rollouts")
    if len({row.reward is None for row in rows}) > 1:
        raise UserError(f"{source}: some rows have a reward and some have none: give all or none")
    by_id: dict[str, Row] = {}
    for row in rows:
        first = by_id.setdefault(row.problem_id, row)
        same = first.answer == row.answer or canonical(first.answer) == canonical(row.answer)
        if normal(first.problem) != normal(row.problem) or not same:
            called = " ".join(row.problem_id.split())[:80]
            raise UserError(f"{source}: problem_id {called} stands for two problems or answers: make ids distinct")
    if draw is None:
        return rows
    problems = list(dict.fromkeys(map(_drawn_as, rows)))
    if draw > len(problems):
        raise UserError(f"rollouts.draw: {draw} problems asked for, {source} holds {len(problems)}")
    kept = set(random.Random(f"rollouts {seed}").sample(problems, draw))
    return [row for row in rows if _drawn_as(row) in kept]


def _drawn_as(row: Row) -> str:
    """The row's id, or without one its normalised problem text."""
    return normal(row.problem) if row.problem_id == row.problem else row.problem_id


def row_of(record: Any, where: str) -> Row:
    """A record as a row; ``UserError`` says what is wrong with it and ``where``."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: a row is an object with problem, answer, completion")
    for name in ("problem", "answer", "completion"):
        if name not in record:
            raise UserError(f"{where}: {name} is missing; a row has problem, answer, completion")
    texts = {}
    for name in ("problem", "answer", "completion"):
        value = record[name]
        if name == "answer" and isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            value = str(value) if isinstance(value, int) or math.isfinite(value) else NO_GOLD
        if not isinstance(value, str):
            raise UserError(f"{where}: {name} must be text, not {type(value).__name__}")
        texts[name] = _whole(value, name, where)
    for name in ("problem", "answer"):
        if not texts[name].strip():
            raise UserError(f"{where}: {name} is empty")
    if texts["answer"].strip().lower() == NO_GOLD:
        raise UserError(f"{where}: answer is {NO_GOLD}, a missing value: give the gold answer, or remove the row")
    reward = record.get("reward")
    problem_id, teacher = record.get("problem_id"), record.get("teacher")
    return Row(
        problem_id=_whole(str(texts["problem"] if problem_id in (None, "") else problem_id), "problem_id", where),
        teacher=_whole(str("unnamed" if teacher in (None, "") else teacher), "teacher", where),
        reward=None if reward is None else reward_of(reward, where),
        **texts,
    )


def reward_of(value: Any, where: str) -> float:
    """A reward as a number, from a number, true (1) or false (0), or one of these as text.

    ``UserError`` for anything else and for numbers too large for float32.
    """
    number = float(value) if isinstance(value, Decimal) else value
    if isinstance(value, str):
        text = value.strip().lower()
        number = TRUTH[text] if text in TRUTH else float(text) if NUMBER.fullmatch(text) else None
    if not isinstance(number, int | float) or not abs(number) <= LARGEST:
        said = repr(value)
        said = said if len(said) <= 60 else f"{said[:60]}..."
        raise UserError(f"{where}: reward must be a number (0 or 1 from a verifier), not {said}")
    return float(number)


def _whole(text: str, name: str, where: str) -> str:
    """The text; ``UserError`` if it cannot be encoded in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {name} holds half of a character (a lone surrogate): remove it") from None
    return text
