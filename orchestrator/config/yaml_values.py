"""Parses YAML text to plain values: the core of YAML 1.2, with limits; ``NotYaml`` says in one line what is wrong.

Numbers are decimal (``12``, ``-3``, ``1.5``, ``.5``, ``1e-5``), ``true`` and ``false`` are the booleans, and any other
unquoted scalar is a string. What YAML 1.1 or a programming language would read as a number, a boolean or a date
(``010``, ``0x10``, ``1_000``, ``1:30``, ``yes``) is returned as :class:`Ambiguous`: accepted as a string, refused for
any other type (``values.py``).
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 2**18  # per file
MOST_VALUES = 10_000  # keys and values; repetition by an alias counts each time
DEEPEST = 50  # nested mappings and lists

_INTEGER = r"[-+]?(?:0|[1-9][0-9]*)"
_FLOAT = r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(?:0|[1-9][0-9]*)(?=[eE]))(?:[eE][-+]?[0-9]+)?"
_NUMBER_LIKE = (
    r"(?i:[-+]?[0-9][0-9_,]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?|[-+]?\.[0-9_]+|[-+]?0[xob][0-9a-f_]+"
    r"|[-+]?[0-9][0-9_]*(?::[0-9]{1,2})+(?:\.[0-9_]*)?|[-+]?\.?inf(?:inity)?|\.?nan"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[ t].*)?|yes|no|on|off|y|n)"
)
_PLAIN = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": _INTEGER,
    "float": _FLOAT,
    "merge": r"<<",
    "ambiguous": _NUMBER_LIKE,
}
_TAG = "tag:yaml.org,2002:"


class Ambiguous(str):
    """An unquoted string that other YAML readers take for a number, a boolean or a date."""


class NotYaml(ValueError):
    """Invalid YAML: the reason in one line, and its ``line`` from 1, None if it has none."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


class Source:
    """A YAML text: its ``value``, and the line of each part."""

    def __init__(self, text: str) -> None:
        self._root = _compose(text)
        self._left = MOST_VALUES
        self.value = None if self._root is None else self._value(self._root, ())

    def line_of(self, place: tuple[str | int, ...]) -> int | None:
        """The line, from 1, of the value at this place (keys and indices); None if there is no such value."""
        node = self._root
        line = None
        for part in place:
            line, node = next(((at, n) for name, at, n in _parts(node) if name == part), (None, None))
            if node is None:
                return None
        return line

    def _value(self, node: yaml.Node, above: tuple[yaml.Node, ...]) -> Any:
        self._left -= 1
        if self._left < 0:
            raise NotYaml(f"more than {MOST_VALUES} values, counting repeated ones each time", _line(node))
        if node in above:
            raise NotYaml("a mapping or list contains itself: remove the alias", _line(node))
        if len(above) > DEEPEST:
            raise NotYaml(f"nested deeper than {DEEPEST} levels", _line(node))
        above = (*above, node)
        if isinstance(node, yaml.CollectionNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            raise NotYaml(f"the tag {_short(node.tag)} is not supported: remove it", _line(node))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, above) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            merged: dict[str, Any] = {}
            for source in _merged(node):
                merged |= self._value(source, above)
            own = ((k, v) for k, v in node.value if k.tag != _TAG + "merge")
            return merged | {k.value: self._value(v, above) for k, v in own}
        return _scalar(node)


def read_text(path: Path) -> str:
    """The text of a file; ``OSError`` or ``ValueError`` if it is unreadable, not a regular file or too large."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a FIFO would block
    with open(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotYaml("is not a regular file: a study is a YAML file")
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise NotYaml(f"is larger than {MOST_BYTES >> 10} KiB: a study is a short YAML file")
    return data.decode("utf-8")


class _Loader(yaml.SafeLoader):
    """Composes nodes with the tags of YAML 1.2's core; ``NotYaml`` at the first node beyond the limits."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as PyYAML declares it
    _nodes = _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._nodes += 1
        line = self.peek_event().start_mark.line + 1
        if self._nodes > MOST_VALUES:
            raise NotYaml(f"more than {MOST_VALUES} values", line)
        if self._depth > DEEPEST:
            raise NotYaml(f"nested deeper than {DEEPEST} levels", line)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in (_TAG + "str", _TAG + "ambiguous", _TAG + "merge"):
                shown = _short(key.value) if isinstance(key, yaml.ScalarNode) else "that is a list or mapping"
                raise NotYaml(f"the key {shown} is not a string: put it in quotes", _line(key))
            if key.value in seen:
                raise NotYaml(f"the key {_short(key.value)} appears twice", _line(key))
            seen.add(key.value)
        return node


for _name, _pattern in _PLAIN.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)


def _compose(text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise NotYaml(str(reason).splitlines()[0], mark.line + 1 if mark else None) from None
    except NotYaml:
        raise
    except (
        RecursionError,
        ValueError,
        OverflowError,
        IndexError,
        AttributeError,
        TypeError,
    ) as error:  # raised by PyYAML itself on malformed text
        raise NotYaml(f"cannot be read ({type(error).__name__})") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _merged(node: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
    """The mappings merged into this one by ``<<``, in increasing precedence."""
    for key, value in node.value:
        if key.tag == _TAG + "merge":
            several = value.value[::-1] if isinstance(value, yaml.SequenceNode) else [value]
            for source in several:
                if not isinstance(source, yaml.MappingNode):
                    raise NotYaml("<< takes a mapping, or a list of them", _line(value))
                yield source


def _parts(node: yaml.Node | None) -> Iterator[tuple[str | int, int, yaml.Node]]:
    """(key or index, line, value node) for each part of a node."""
    if isinstance(node, yaml.SequenceNode):
        yield from ((i, _line(item), item) for i, item in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        yield from ((key.value, _line(key), value) for key, value in node.value)


def _scalar(node: yaml.Node) -> Any:
    kind, text = node.tag.removeprefix(_TAG), node.value
    if kind not in (*_PLAIN, "str") or (kind in _PLAIN and not re.fullmatch(_PLAIN[kind], text)):
        raise NotYaml(f"{_short(text)} is not of the type {_short(kind)}: remove the tag", _line(node))
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind in ("int", "float"):
        if len(text) > 60 or (kind == "float" and not math.isfinite(float(text))):
            raise NotYaml(f"{_short(text)} is out of range for a number", _line(node))
        return int(text) if kind == "int" else float(text)
    return Ambiguous(text) if kind == "ambiguous" else text
