"""Reads rows of a task's source (a JSONL file, a folder of them, or a hub dataset), and draws problems by seed.

A source is local if the path exists. Otherwise it must be a hub name ("owner/name") and is loaded through
``datasets`` (from its cache if the machine is offline).
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
    """Yield (where, row) pairs of ``source``; ``where`` is "file:line" or "name[index]", for error messages.

    Of a folder its ``<split>.jsonl`` is read. Of a hub dataset, "owner/name" or pinned as "owner/name@commit",
    ``hub_split`` (default: ``split``) of ``config``. ValueError for a missing file, a line that is not a JSON object,
    or a dataset that cannot be loaded.
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
    """The non-empty text (or integer, as text) under ``key``; ValueError names ``where``."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: field {key!r} must be a non-empty text")
    return value


def worked(row: dict[str, Any], answer: str) -> str | None:
    """The row's "solution", ending in the boxed answer, or None if it has none."""
    solution = row.get("solution")
    if not isinstance(solution, str) or not solution.strip():
        return None
    solution = solution.strip()
    return solution if last_boxed(solution) is not None else f"{solution}\n{boxed(answer)}"


def boxed(answer: str) -> str:
    """The closing line of a solution, for tasks whose instruction asks for ``\\boxed{}``."""
    return f"The final answer is \\boxed{{{answer}}}."


def readable(problems: list[Problem], places: Mapping[str, str]) -> list[Problem]:
    """The problems with ``as_text`` set; ValueError names the first with an unreadable gold answer.

    ``places`` maps ids to rows, for the message. Formulas are parsed, at some milliseconds each, so draw first.
    """
    golds = [problem.answer for problem in problems]
    with Grader() as grader:
        bad, texts = grader.unreadable(golds), set(grader.as_text(golds))
    if bad:
        first = problems[bad[0]]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise ValueError(
            f"{places[first.id]}: the answer {first.answer[:60]!r} can be read neither as a number nor as a formula"
            f"{more}: correct or remove the row"
        )
    return [replace(problem, as_text=i in texts) for i, problem in enumerate(problems)]


def drawn(problems: Sequence[Problem], draw: int | None, seed: int, source: str) -> list[Problem]:
    """All problems, or a fixed sample of ``draw`` without replacement, in the source's order.

    With the same seed a smaller draw is a subset of a larger one. ValueError for no problem, duplicate ids, or a draw
    larger than the source.
    """
    if not problems:
        raise ValueError(f"{source}: holds no problem")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise ValueError(f"{source}: problem id {problem.id!r} appears twice; make ids distinct")
        seen.add(problem.id)
    if draw is None:
        return list(problems)
    if not 1 <= draw <= len(problems):
        raise ValueError(f"{source}: cannot draw {draw} of {len(problems)} problems; set draw between 1 and that")
    order = list(range(len(problems)))
    random.Random(f"draw {seed}").shuffle(order)
    return [problems[index] for index in sorted(order[:draw])]
