"""The adapters that ``compare`` is given: which folder each is, what it goes by, and what this tool noted of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from execution.errors import UserError
from execution.storage import RECORD

CHECKPOINT = re.compile(r"(?:checkpoint|step)-(\d{1,9})")
KEY = re.compile(r"-(?=[0-9]*[a-f])[0-9a-f]{10}$")  # of a step's folder in a store
HUB = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/[^/]+")  # how the hub's cache lays a repository out
RESERVED = "base"  # what reports call the base model
LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class Given:
    """One adapter as it was named: its folder, the name it goes by, and what a run of this tool noted beside it.

    ``record`` is the payload of its training's step, empty where it was not trained here; ``step`` the optimiser step
    that it is of, where that is known; ``checkpoints`` are the states of the same training at the steps compared along.
    """

    path: Path
    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    checkpoints: Mapping[int, Path] = field(default_factory=dict)

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of its training."""
        return self.record.get("config", {})

    @property
    def start(self) -> Literal["a", "b"]:
        """The factor that its training drew, where that is known."""
        adapter = self.config.get("adapter")
        return "b" if isinstance(adapter, dict) and adapter.get("start") == "b" else "a"


def resolve(words: Sequence[str]) -> list[Given]:
    """Each ``[NAME=]FOLDER`` with a name of its own: the shortest end of its path that no other one has.

    Where all folders are checkpoints of two trainings or more, the trainings are compared, at the last step that all
    of them have, and along those that two have.
    """
    named = [_split(word) for word in words]
    unnamed = [path for name, path in named if name is None]
    courses = _courses(unnamed) if len(unnamed) == len(named) else []
    if courses:
        names = distinct_names([folder for folder, _ in courses])
        last = max(set.intersection(*(set(saved) for _, saved in courses)))
        given = [_given(saved[last], name, saved) for name, (_, saved) in zip(names, courses, strict=True)]
    else:
        short = iter(distinct_names(unnamed))
        given = [_given(path, name or next(short), {}) for name, path in named]
    seen: set[str] = set()
    for one in given:
        if one.name == RESERVED:
            raise UserError(f"{one.path}: {RESERVED!r} is what the base model is called: write it as NAME={one.path}")
        if one.name in seen:
            raise UserError(f"two adapters are called {one.name!r}: write them as NAME=FOLDER, each name once")
        seen.add(one.name)
    return given


def _split(word: str) -> tuple[str | None, Path]:
    """``NAME=FOLDER`` in its parts; a path that holds an = is a path where it is there, or has a / before it."""
    name, equals, folder = word.partition("=")
    if not equals or os.sep in name or os.path.isdir(word):
        name, equals, folder = "", "", word
    if not folder or "\0" in folder:
        raise UserError(f"{word[:LONGEST]!r} names no folder: write [NAME=]FOLDER")
    if equals and not name.strip():
        raise UserError(f"{word[:LONGEST]!r} has no name before the =: write [NAME=]FOLDER")
    if not name.isprintable() or len(name) > LONGEST:
        raise UserError(f"the name {name[:40]!r} holds control characters or is too long: choose another")
    return name.strip() or None, Path(folder)


def _courses(paths: Sequence[Path]) -> list[tuple[Path, dict[int, Path]]]:
    """Checkpoints by the folder they lie in; empty where some path is none, or no step is common to all folders."""
    folders: dict[Path, dict[int, Path]] = {}
    for path in paths:
        typed = _typed(path)
        match = CHECKPOINT.fullmatch(typed.name)
        if not match:
            return []
        if int(match[1]) in folders.setdefault(typed.parent, {}):
            raise UserError(
                f"{path} and {folders[typed.parent][int(match[1])]} are both step {int(match[1])}: name one"
            )
        folders[typed.parent][int(match[1])] = path
    common = set.intersection(*(set(saved) for saved in folders.values())) if folders else set()
    return list(folders.items()) if len(folders) > 1 and len(paths) > len(folders) and common else []


def _typed(path: Path) -> Path:
    """The whole path as it was typed: names come from it, and never from where a link leads."""
    _real(path)
    return Path(os.path.abspath(path))


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{str(path)[:LONGEST]} is no folder ({error}): name one that PEFT wrote"[:400]) from None


def hub_name(path: str) -> str | None:
    """The name on the hub of what lies in its cache, with what follows the snapshot; None for any other path."""
    match = HUB.search(path)
    return None if match is None else f"{match[1]}/{match[2]}{path[match.end() :]}"


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path that no other one has, without what all of them end in.

    Checkpoints of several trainings keep their training's name. A store's folders, ``sft-3f9a1c2e00/adapter``, go by
    their step's name where that is enough, a hub's snapshot by its repository's. ``UserError`` for one and the same
    folder twice.
    """
    real = [_real(path) for path in paths]
    twice = next((path for i, path in enumerate(paths) if real[i] in real[:i]), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice: an adapter against itself is in every report")
    return _distinct([Path(hub_name(str(_typed(path))) or _typed(path)).parts for path in paths])


def _distinct(parts: Sequence[tuple[str, ...]]) -> list[str]:
    while len(parts) > 1 and len({p[-1] for p in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [p[:-1] for p in parts]
    if len(parts) == 1:
        parts = [p[:-1] if p[-1] == "adapter" and len(p) > 1 else p for p in parts]
    kept = [p if CHECKPOINT.fullmatch(p[-1]) and len(p) > 1 else None for p in parts]
    trainings = list(dict.fromkeys(p[:-1] if kept[i] else p for i, p in enumerate(parts)))
    if any(kept) and (len(trainings) > 1 or len(parts) == 1):
        known = dict(zip(trainings, _distinct(trainings), strict=True))
        return [f"{known[p[:-1]]}/{p[-1]}" if kept[i] else known[p] for i, p in enumerate(parts)]
    names = ["".join(c if c.isprintable() else "?" for c in _shortest(p, parts)) for p in parts]
    bare = [KEY.sub("", name) for name in names]
    return bare if len(set(bare)) == len(bare) else names


def _shortest(own: tuple[str, ...], parts: Sequence[tuple[str, ...]]) -> str:
    for length in range(1, len(own) + 1):
        if sum(other[-length:] == own[-length:] for other in parts) == 1:
            return "/".join(own[-length:])
    return "/".join(own)


def _given(path: Path, name: str, checkpoints: Mapping[int, Path]) -> Given:
    """With what the store noted of its training, beside the adapter's folder or a checkpoint's."""
    real = _real(path)
    match = CHECKPOINT.fullmatch(real.name)
    record = _record(real.parent.parent if match else real.parent)
    step = int(match[1]) if match else record.get("config", {}).get("report_step")
    return Given(path, name, record, step if isinstance(step, int) else None, checkpoints)


def _record(folder: Path) -> Mapping[str, Any]:
    try:
        if not (folder / RECORD).is_file():
            return {}
        payload = json.loads((folder / RECORD).read_text(encoding="utf-8"))["payload"]
        config = payload["config"]
        trained = payload["kind"] == "train" and isinstance(config["method"], str)
        trained = trained and all(type(config[key]) is int for key in ("init_seed", "order_seed", "report_step"))
        trained = trained and isinstance(config["learning_rate"], float | int) and 0 < config["learning_rate"] < 1e6
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return payload if trained else {}
