"""Reads rows of a task's source (a JSONL file, a folder of them, or a hub dataset), and draws problems by seed.

A source is local if the path exists. Otherwise it must be a hub name ("owner/name") and is loaded through
``datasets`` (from its cache if the machine is offline).
"""

from __future__ import annotations

import itertools
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

REFUSE, LEAVE_OUT = "refuse", "leave_out"  # a task's setting ``unreadable``: what becomes of golds that none can check
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[0-9a-f]{40})?")


def read(
    source: str, *, split: str, config: str | None = None, hub_splits: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) pairs of ``source``; ``where`` is "file:line" or "name[index]", for error messages.

    Of a folder its ``<split>.jsonl`` is read. Of a hub dataset, "owner/name" or pinned as "owner/name@commit", it is
    the first of ``hub_splits`` (default: ``split``) that there is, of ``config``; where that is None and the dataset
    has several configurations, of all of them in order. ValueError for a missing file (with those of the folder), a
    line that is not a JSON object, or a dataset that cannot be loaded (with its splits).
    """
    path, there = Path(source), ""
    if path.is_dir():
        there = ", ".join(sorted(file.name for file in path.glob("*.jsonl")))
        path = path / f"{split}.jsonl"
    if path.is_file():
        return _read_file(path)
    if there or path.suffix in (".jsonl", ".json") or not HUB_NAME.fullmatch(source):
        other = f" (there is {there})" if there else ""
        raise ValueError(f"{path}: no such file{other}; give a JSONL file, a folder with {split}.jsonl, or a hub name")
    return read_hub(source, config, hub_splits or [split])


def _read_file(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, row in json_rows(path, lambda line: f"{path}:{line}", "a JSON object in UTF-8"):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, found {type(row).__name__}")
        yield where, row


def read_hub(name: str, config: str | None, splits: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """As :func:`read`, of a dataset by its hub name (or of a folder that ``datasets`` reads)."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    repository, _, commit = name.partition("@")
    split, configs = splits[0], [config]
    try:
        try:
            parts = [load_dataset(repository, config, split=split, revision=commit or None)]
        except ValueError as error:  # no such split, or no configuration named
            configs, split = _mended(repository, commit or None, config, splits, error)
            parts = [load_dataset(repository, each, split=split, revision=commit or None) for each in configs]
    except (OSError, ValueError, DatasetsError) as error:  # not found, no network, nothing of that name, damaged
        why = f"cannot load split {split!r} from the hub ({first_line(error)})"
        raise ValueError(f"{name}: {why}; give a local file or folder instead") from error
    for index, row in enumerate(itertools.chain.from_iterable(parts)):
        yield f"{name}[{index}]", dict(row)


def _mended(
    repository: str, commit: str | None, config: str | None, splits: Sequence[str], error: ValueError
) -> tuple[list[str | None], str]:
    """The configurations and the split to read of a dataset that could not be read as asked, because of ``error``.

    ``ValueError`` with the configurations, or the splits, that it has; the ``error`` itself where these are not it.
    """
    from datasets import get_dataset_config_names, get_dataset_split_names

    configs: list[str | None] = list(get_dataset_config_names(repository, revision=commit))
    if config is not None and config not in configs:
        raise ValueError(f"it has no configuration {config!r}, but {', '.join(map(str, configs))}") from error
    configs = configs if config is None else [config]
    there = get_dataset_split_names(repository, configs[0], revision=commit)
    split = next((each for each in splits if each in there), None)
    if split is None:
        raise ValueError(f"it has no such split, but {', '.join(there)}") from error
    if split == splits[0] and len(configs) == 1:
        raise error
    return configs, split


def text_field(row: dict[str, Any], key: str, where: str) -> str:
    """The non-empty text (or integer, as text) under ``key``; ValueError names ``where``."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        has = f", and the row has {', '.join(map(str, row))}" if key not in row else ""
        raise ValueError(f"{where}: field {key!r} must be a non-empty text{has}")
    return value


def gold_field(row: dict[str, Any], key: str, where: str, unreadable: str) -> str:
    """The gold answer under ``key``, stripped; "" for one that is empty and is to be left out."""
    if unreadable == LEAVE_OUT and key in row and (row[key] is None or not str(row[key]).strip()):
        return ""
    return text_field(row, key, where).strip()


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


def readable(problems: list[Problem], places: Mapping[str, str], unreadable: str = REFUSE) -> list[Problem]:
    """The problems with ``as_text`` set; ValueError names the first with an unreadable gold answer, unless these are to
    be left out (``unreadable``): then they are marked.

    ``places`` maps ids to rows, for the message. Formulas are parsed, at some milliseconds each, so draw first.
    """
    if unreadable not in (REFUSE, LEAVE_OUT):
        raise ValueError(f"settings.unreadable is {REFUSE} or {LEAVE_OUT}, not {unreadable!r}")
    golds = [problem.answer for problem in problems]
    with Grader() as grader:
        bad, texts = grader.unreadable(golds), set(grader.as_text(golds))
    if bad and unreadable == REFUSE:
        first = problems[bad[0]]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise ValueError(
            f"{places[first.id]}: the answer {first.answer[:60]!r} can be read neither as a number nor as a formula"
            f"{more}: correct or remove the row, or leave such rows out with settings: {{unreadable: {LEAVE_OUT}}}"
        )
    left = set(bad)
    return [replace(problem, as_text=i in texts, unreadable=i in left) for i, problem in enumerate(problems)]


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
