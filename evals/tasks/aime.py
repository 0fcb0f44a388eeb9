"""AIME: competition problems whose answers are whole numbers from 0 to 999.

Rows are ``{"id", "problem", "answer"}``, optionally with "solution". In a folder the year's file is
``aime<year>.jsonl``; on the hub it is the dataset of that year, or another one with the same columns.
"""

from __future__ import annotations

from pathlib import Path

from evals.tasks.problem import Problem, Task
from evals.tasks.rows import drawn, read, text_field, worked

LATEST = 2026
HUB = "MathArena/aime_{year}"
LARGEST = 999


def load(
    source: str | None = None,
    *,
    split: str = "test",
    draw: int | None = None,
    seed: int = 0,
    year: int = LATEST,
) -> list[Problem]:
    """The problems of one ``year`` from a JSONL file, a folder with ``aime<year>.jsonl``, or the hub.

    A year has one split, "test" (on the hub mostly called "train"). Rows without an id are numbered.
    ValueError for another split, or naming file and line of a bad row.
    """
    if split != "test":
        raise ValueError(f"the aime task has no split {split!r}; a year is one split, 'test'")
    source = HUB.format(year=year) if source is None else str(source)
    place = str(Path(source) / f"aime{year}.jsonl") if Path(source).is_dir() else source
    problems = []
    for index, (where, row) in enumerate(read(place, split=split, hub_splits=("train", "test"))):
        answer = text_field(row, "answer", where).strip()
        if not (answer.isascii() and answer.isdigit() and int(answer) <= LARGEST):
            raise ValueError(f"{where}: the answer must be a whole number from 0 to {LARGEST}, found {answer[:40]!r}")
        identity = text_field(row, "id", where) if "id" in row else f"aime{year}-{index + 1}"
        gold = str(int(answer))
        problems.append(Problem(identity, text_field(row, "problem", where), gold, solution=worked(row, gold)))
    return drawn(problems, draw, seed, place)


TASK = Task(
    name="aime",
    title="AIME",
    load=load,
    instruction="{problem}\n\nReason step by step, and put your final answer within \\boxed{}.",
    hub=HUB.format(year=LATEST),
    splits=("test",),
)
