"""Rows of a task's source: a JSONL file, a folder of them, or a dataset by its hub name; and the seeded draw.

A source is local if the path exists. Otherwise it must look like a hub name ("owner/name"), and is then loaded
through ``datasets`` (from its cache when the machine is offline).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evals.answers import Grader
from evals.extraction import last_boxed
from evals.json_rows import json_rows
from evals.tasks.problem import Problem
from execution.errors import first_line

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[0-9a-f]{40})?")


def read(
    source: str, *, split: str, config: str | None = None, hub_split: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs (where, row) of ``source``; ``where`` is "file:line" or "name[index]", for error messages.

    A folder gives its ``<split>.jsonl``. A hub dataset, "owner/name" or pinned as "owner/name@commit", gives
    ``hub_split`` (``split`` where unset) of ``config``. Raises ValueError for a missing file, a line that is
    no JSON object, or a dataset that cannot be loaded.
    """
    path = Path(source)
    if path.is_dir():
        path = path / f"{split}.jsonl"
    if path.is_file():
        return _read_file(path)
    if path.suffix in (".jsonl", ".json") or not HUB_NAME.fullmatch(source):
        raise ValueError(f"{path}: no such file; give a JSONL file, a folder with {split}.jsonl, or a hub name")
    return _read_hub(source, config, hub_split or split)


def _read_file(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, row in json_rows(path, lambda line: f"{path}:{line}", "a JSON object in UTF-8"):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, found {type(row).__name__}")
        yield where, row


def _read_hub(name: str, config: str | None, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    repository, _, commit = name.partition("@")
    try:
        rows = load_dataset(repository, config, split=split, revision=commit or None)
    except (OSError, ValueError) as error:  # not found, no network, no such split
        why = f"cannot load split {split!r} from the hub ({first_line(error)})"
        raise ValueError(f"{name}: {why}; give a local file or folder instead") from error
    for index, row in enumerate(rows):
        yield f"{name}[{index}]", dict(row)


def text_field(row: dict[str, Any], key: str, where: str) -> str:
    """The non-empty text (or whole number, as text) under ``key``, or ValueError naming ``where``."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: field {key!r} must be a non-empty text")
    return value


def worked(row: dict[str, Any], answer: str) -> str | None:
    """The row's "solution", ending in the boxed answer, or None where there is no text under that name."""
    solution = row.get("solution")
    if not isinstance(solution, str) or not solution.strip():
        return None
    solution = solution.strip()
    return solution if last_boxed(solution) is not None else f"{solution}\n{boxed(answer)}"


def boxed(answer: str) -> str:
    """The closing line that the tasks with ``\\boxed{}`` in their instruction ask for."""
    return f"The final answer is \\boxed{{{answer}}}."


def readable(problems: list[Problem], places: Mapping[str, str]) -> list[Problem]:
    """The problems, each with ``as_text`` told; ValueError naming the first whose gold answer is none at all.

    ``places`` names the row of each id. Formulas are parsed, some milliseconds each, so draw first.
    """
    golds = [problem.answer for problem in problems]
    with Grader() as grader:
        bad, texts = grader.unreadable(golds), set(grader.as_text(golds))
    if bad:
        first = problems[bad[0]]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise ValueError(
            f"{places[first.id]}: the answer {first.answer[:60]!r} can be read neither as a number nor as a formula"
            f"{more}: mend or remove the row"
        )
    return [replace(problem, as_text=i in texts) for i, problem in enumerate(problems)]


def drawn(problems: Sequence[Problem], draw: int | None, seed: int, source: str) -> list[Problem]:
    """All problems, or a fixed sample of ``draw`` without replacement, in the source's order.

    With one seed a smaller draw is a subset of a larger one. Raises ValueError for no problem, repeated ids, or a
    draw that the source cannot fill.
    """
    if not problems:
        raise ValueError(f"{source}: holds no problem")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise ValueError(f"{source}: problem id {problem.id!r} stands there twice; make ids distinct")
        seen.add(problem.id)
    if draw is None:
        return list(problems)
    if not 1 <= draw <= len(problems):
        raise ValueError(f"{source}: cannot draw {draw} of {len(problems)} problems; set draw between 1 and that")
    order = list(range(len(problems)))
    random.Random(f"draw {seed}").shuffle(order)
    return [problems[index] for index in sorted(order[:draw])]
