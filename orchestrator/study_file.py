"""From a YAML file and ``--set`` to a Study, or to one line that says what is wrong with it and where."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.errors import UserError
from orchestrator.study import Study
from orchestrator.values import Frozen


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """Read ``path`` (and what it ``extends``), apply ``KEY=VALUE`` overrides, check all of it."""
    raw = read_yaml(path)
    for override in overrides or []:
        _set(raw, override)
    try:
        study = _fill_data(Study.model_validate(raw))
        json.dumps(study.model_dump(mode="json"), ensure_ascii=False).encode()
    except ValidationError as error:
        raise UserError(f"{path}: {_first_line(error, raw)}") from None
    except UnicodeEncodeError:
        raise UserError(f"{path}: a text holds half of a character (a lone surrogate): remove it") from None
    except RecursionError:
        raise UserError(f"{path}: a mapping holds itself: remove the alias") from None
    return study


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file; ``extends: OTHER.yaml`` lays it over another study of the same folder."""
    try:
        here = path.resolve()
        if here in seen:
            raise UserError(f"{path} extends itself: remove one extends")
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such study: name a YAML file, such as one of configs/") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name the study's YAML file in it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text: a study is a YAML file") from None
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{str(path)[:200]!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        raw = yaml.load(text, Loader=_Loader)
    except YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {_why(error)}") from None
    if raw is None:
        raise UserError(f"{path} is empty: a study needs at least name, base, rollouts, methods, evaluation")
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a study is a mapping of keys, this is a {type(raw).__name__}")
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    return _over(read_yaml(path.parent / str(parent), (*seen, here)), raw)


# What PyYAML's safe loader raises on bad text: its own errors, and its constructors' (a date that is none, an empty
# integer, nesting without end).
YAML_ERRORS = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, RecursionError)


def _why(error: Exception) -> str:
    """A YAML error's reason in one line."""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error) or type(error).__name__
    return str(reason).splitlines()[0]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats (1e-4 is a number) and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        keys: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            keys.append(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


# Mappings of several kinds, and the key that says which: another kind does not inherit the first one's settings.
TAGS = ("from_scratch", "hub", "local", "gguf", "vllm", "file", "openai")  # of those kinds, within an error's place
UNIONS = {"base": "kind", "model": "kind", "rollouts": "source", "problems": "task"}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, mapping by mapping; a mapping of another kind replaces the whole."""
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
        value = yaml.load(text, Loader=_Loader)
    except YAML_ERRORS as error:
        raise UserError(f"--set {override}: the value is not valid YAML: {_why(error)}") from None
    place: Any = raw
    *path, last = name.split(".")
    for i, part in enumerate(path):
        if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        else:
            raise UserError(f"--set {override}: {'.'.join(path[: i + 1])} is no mapping")
    if isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise UserError(f"--set {override}: {'.'.join(path)} is no mapping")


def _first_line(error: ValidationError, raw: dict[str, Any]) -> str:
    """The first complaint in one line, with a near name for an unknown key, and how many more there are."""
    errors = error.errors(include_url=False)
    first = errors[0]
    where = ".".join(str(p) for p in first["loc"] if p not in TAGS)
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        near = difflib.get_close_matches(name, [k for k in _all_keys() if k != name], n=1)
        message = "unknown key" + (f"; did you mean {near[0]}?" if near else "; remove it")
    elif first["type"] in ("missing", "union_tag_not_found"):
        message = "is needed and not there"
        if tag := first.get("ctx", {}).get("discriminator", "").strip("'"):  # of several kinds: which one it is
            where = f"{where}.{tag}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        told = not isinstance(first["input"], dict | list) and first["loc"][-1] != "key"  # a secret may stand there
        if told and first["type"] not in ("value_error", "union_tag_invalid"):
            message = f"{message[:1].lower()}{message[1:]}, not {first['input']!r}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {message}{more}" if where else f"{message}{more}"


def _all_keys() -> list[str]:
    def below(kind: type[Frozen]) -> set[str]:
        return set(kind.model_fields).union(*(below(c) for c in kind.__subclasses__()))

    return sorted(below(Frozen))


def _fill_data(study: Study) -> Study:
    """Put the data folder where paths say ``{data}``, and make paths that exist absolute.

    ``UserError`` where the data folder is needed and not set.
    """
    folder = study.data or os.environ.get("ORCHESTRATOR_DATA")

    def fill(value: Any, where: str) -> Any:
        if isinstance(value, dict):
            return {k: fill(v, f"{where}.{k}" if where else k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [fill(v, f"{where}.{i}") for i, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        if not value.startswith("{data}"):
            named = where == "rollouts.name" or (where.endswith((".path", ".source")) and where != "rollouts.source")
            place = named and Path(value).exists()
            return str(Path(value).resolve()) if place else value  # workers stand in other folders
        if folder is None:
            raise UserError(f"{where}: {value} needs the data folder: set ORCHESTRATOR_DATA, or --set data=FOLDER")
        return str(Path(value.replace("{data}", folder, 1)).resolve())

    return Study.model_validate(fill(study.model_dump(), ""))
