"""Reads a Study from a YAML file and ``--set``; ``UserError`` says in one line what is wrong, and where."""

from __future__ import annotations

import difflib
import json
import os
import re
from itertools import permutations
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from execution.errors import UserError
from orchestrator.config.study import Study
from orchestrator.config.values import Frozen, hub_like
from orchestrator.config.yaml_values import DEEPEST, NotYaml, Source, read_text

# Settings that are paths, and settings that are a path if it exists, else a hub name.
FILES = {"data", "base.path", "rollouts.path", "rollouts.model.path", "rollouts.models.*.model.path"}
FILES_OR_HUB = {
    "rollouts.name", "rollouts.problems.source", "evaluation.tasks.*.source", "evaluation.tasks.*.shots.source",
}  # fmt: skip


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """Read ``path`` (and what it ``extends``), apply ``KEY=VALUE`` overrides, and validate it.

    Relative paths are relative to the folder of their file; those of an override to the working folder. ``UserError``
    for anything invalid.
    """
    files = _read(path)
    raw = _together(files)
    for override in overrides or []:
        _set(raw, override)
    try:
        study = _fill_data(Study.model_validate(raw))
        json.dumps(study.model_dump(mode="json"), ensure_ascii=False).encode()
    except ValidationError as error:
        raise UserError(_first_line(error, path, files, overrides or [])) from None
    except UnicodeEncodeError:
        raise UserError(f"{path}: a string has half of a character (a lone surrogate): remove it") from None
    return study


def _together(files: list[tuple[Path, Source]]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for file, source in reversed(files):
        raw = _over(raw, {k: v for k, v in _rooted(source.value, file.parent).items() if k != "extends"})
    return raw


def _read(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, Source]]:
    """The study's file, followed by the files that it extends (``extends: OTHER.yaml``), the nearest first."""
    try:
        here = path.resolve()
        if here in seen:
            raise UserError(f"{path} extends itself: remove one extends")
        if len(seen) > DEEPEST:
            raise UserError(f"{path}: more than {DEEPEST} studies extend each other: merge some")
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file: name a YAML file, such as one of configs/") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name the study's YAML file in it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text: a study is a YAML file") from None
    except NotYaml as error:
        raise UserError(f"{path} {error}") from None
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{str(path)[:200]!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        source = Source(text)
    except NotYaml as error:
        line = f", line {error.line}" if error.line else ""
        raise UserError(f"{path}{line}: not valid YAML: {error}") from None
    raw = source.value
    if raw is None:
        raise UserError(f"{path} is empty: a study needs at least name, base, rollouts, methods, evaluation")
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a study is a mapping, this is a {type(raw).__name__}")
    parent = raw.get("extends")
    if parent is None:
        return [(path, source)]
    if not isinstance(parent, str):
        raise UserError(
            f"{path}, line {source.line_of(('extends',))}: extends must be the name of one YAML file, not {parent!r}"
        )
    return [(path, source), *_read(path.parent / parent, (*seen, here))]


def _rooted(value: Any, folder: Path, where: str = "") -> Any:
    """``value`` with relative paths resolved against ``folder``; ``where`` is its dotted key."""
    if isinstance(value, dict):
        return {k: _rooted(v, folder, f"{where}.{k}" if where else k) for k, v in value.items()}
    if isinstance(value, list):
        return [_rooted(item, folder, f"{where}.*") for item in value]
    if not isinstance(value, str) or not value or value.startswith("{data}"):
        return value
    if where in FILES or (where in FILES_OR_HUB and ((folder / value).exists() or not hub_like(value))):
        return str((folder / value).resolve())  # workers have other working folders
    return value


# Tagged unions: the key that says the kind. A mapping of another kind does not inherit the settings that it replaces.
TAGS = (
    "from_scratch",
    "hub",
    "local",
    "gguf",
    "random",
    "vllm",
    "file",
    "openai",
    "written",
)  # their kinds, in an error's location
UNIONS = {"base": "kind", "model": "kind", "rollouts": "source", "problems": "task"}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``below`` with ``above`` merged in recursively; a mapping of another kind replaces the old one."""
    merged = dict(below)
    for name, value in above.items():
        old = below.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            mark = UNIONS.get(name)
            other = mark is not None and value.get(mark, old.get(mark)) != old.get(mark)
            merged[name] = value if other else _over(old, value)
        else:
            merged[name] = value
    return merged


def _set(raw: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise UserError(f"--set {override}: write it as KEY=VALUE, such as training.steps=200")
    try:
        value = Source(text).value
    except NotYaml as error:
        raise UserError(f"--set {override[:200]}: the value is not valid YAML: {error}") from None
    value = _rooted(value, Path.cwd(), re.sub(r"\.\d+(?=\.|$)", ".*", name))
    place: Any = raw
    *path, last = name.split(".")
    if len(path) > DEEPEST:
        raise UserError(f"--set {override[:200]}: nested deeper than {DEEPEST} levels")
    for i, part in enumerate(path):
        if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        else:
            raise UserError(f"--set {override}: {'.'.join(path[: i + 1])} is not a mapping")
    if isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise UserError(f"--set {override}: {'.'.join(path)} is not a mapping")


def _first_line(error: ValidationError, path: Path, files: list[tuple[Path, Source]], overrides: list[str]) -> str:
    """The first error in one line: file and line, key, message, and the number of further errors."""
    errors = error.errors(include_url=False)
    first = errors[0]
    place = tuple(p for p in first["loc"] if p not in TAGS)
    where = ".".join(map(str, place))[:200]
    message = _message(first)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), [k for k in _all_keys() if k != place[-1]], n=1)
        message = "unknown key" + (f"; did you mean {near[0]}?" if near else "; remove it")
    elif first["type"] in ("missing", "union_tag_not_found"):
        message = "is required but missing"
        if tag := first.get("ctx", {}).get("discriminator", "").strip("'"):  # a union without its kind
            where = f"{where}.{tag}"
    key, _, rest = message.partition(": ")
    places = [place]
    if (
        first["type"] == "value_error" and place and rest and key in _all_keys()
    ):  # the message begins with one key of the part
        where, message, places = f"{where}.{key}", rest, [(*place, key), place]
    lines = (f"{file}, line {n}" for p in places for file, source in files if p and (n := source.line_of(p)))
    set_here = any(
        f"{a}.".startswith(f"{b}.") for o in overrides for a, b in permutations((o.partition("=")[0], where))
    )
    at = str(path) if set_here else next(lines, str(path))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{at}: {where}: {message}{more}" if where else f"{path}: {message}{more}"


# How a value of the expected type is written.
HINTS = {
    "int": "; an integer is decimal, such as 200",
    "float": "; a number is decimal, such as 200, 0.5 or 1e-5",
    "bool": "; write true or false",
    "string": "; put a string in quotes",
}


def _message(first: Any) -> str:
    """Pydantic's error message in our words, with the value unless that may be a secret."""
    message = first["msg"].removeprefix("Value error, ")
    value, kind = first["input"], first["type"]
    if kind in ("dataclass_type", "model_type", "model_attributes_type", "dict_type"):
        return "must be a mapping of settings, such as {key: value}"
    if kind == "too_short":
        return f"must hold at least {first['ctx']['min_length']}"
    if isinstance(value, dict | list) or first["loc"][-1:] == ("key",) or kind in ("value_error", "union_tag_invalid"):
        return message
    if isinstance(value, bool) and kind in ("int_type", "float_type"):
        return "must be a number, not true or false"
    shown = value if not isinstance(value, str) or len(value) <= 100 else value[:100] + "…"
    hint = HINTS.get(kind.removesuffix("_type"), "") if value is not None else ""
    return f"{message[:1].lower()}{message[1:]}, not {shown!r}{hint}"


def _all_keys() -> list[str]:
    def below(kind: type[Frozen]) -> set[str]:
        return set(kind.model_fields).union(*(below(c) for c in kind.__subclasses__()))

    return sorted(below(Frozen))


def _fill_data(study: Study) -> Study:
    """A copy with ``{data}`` in paths replaced by the data folder; ``UserError`` if it is needed and not set."""
    folder = study.data or os.environ.get("ORCHESTRATOR_DATA")

    def fill(value: Any, where: str) -> Any:
        if isinstance(value, dict):
            return {k: fill(v, f"{where}.{k}" if where else k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [fill(v, f"{where}.{i}") for i, v in enumerate(value)]
        if not isinstance(value, str) or not value.startswith("{data}"):
            return value
        if folder is None:
            raise UserError(f"{where}: {value} needs the data folder: set ORCHESTRATOR_DATA, or --set data=FOLDER")
        return str(Path(value.replace("{data}", folder, 1)).resolve())

    return Study.model_validate(fill(study.model_dump(), ""))
