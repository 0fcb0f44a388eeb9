"""Settings of what a step does: declared once, as fields of a dataclass; their bounds; and which are part of a key.

A field says all there is to say of a setting: its type with its bounds, its default, what it does in a comment.
``Neutral[T]`` marks one whose default changes nothing: while it has that value it stays out of the key, so that results
from before there was such a setting are still found. ``Unkeyed[T]`` marks one that decides no result, never in a key.
Every other setting is in the key whatever its value.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
NEUTRAL, UNKEYED = "neutral", "unkeyed"  # the marks themselves
Neutral = Annotated[T, NEUTRAL]
Unkeyed = Annotated[T, UNKEYED]
WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Range:
    """Bounds of a number, as a mark in ``Annotated``: at least, above, at most, below."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Pydantic's hook for marks: a schema that is made of such a type holds its input to the same bounds."""
        return handler(source) | self._bounds()

    def wrong(self, value: float) -> str | None:
        """What is wrong with a value, None where nothing is."""
        for name, bound in self._bounds().items():
            if not getattr(operator, name)(value, bound):
                return f"must be {WORDS[name]} {bound}, not {value}"
        return None

    def _bounds(self) -> dict[str, float]:
        return {name: bound for name, bound in vars(self).items() if bound is not None}


Count = Annotated[int, Range(ge=1, le=10**9)]
Every = Annotated[int, Range(ge=0, le=10**9)]
Seed = Annotated[int, Range(ge=0, lt=2**32)]
Positive = Annotated[float, Range(gt=0)]
NotNegative = Annotated[float, Range(ge=0)]
Share = Annotated[float, Range(ge=0, le=1)]
Below1 = Annotated[float, Range(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of such dataclasses. ``ValueError`` for a value that its field does not allow; lists become tuples."""

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, list) and get_origin(bare(hint)) is tuple:  # JSON and YAML know no tuple
                value = tuple(value)
                object.__setattr__(self, name, value)
            complaint = _wrong(value, hint)
            if complaint:
                raise ValueError(f"{name}: {complaint}")


def hints(kind: type[Settings]) -> Mapping[str, Any]:
    """The type of each field, with the marks and bounds that it carries."""
    known: Any = kind  # a class is hashable, which mypy takes from its instances
    return _hints(known)


@cache
def _hints(kind: type[Settings]) -> Mapping[str, Any]:
    annotations = get_type_hints(kind, include_extras=True)
    return MappingProxyType({field.name: annotations[field.name] for field in fields(kind)})


def bare(hint: Any) -> Any:
    """A field's type without marks and bounds."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def stated(settings: Settings) -> dict[str, Any]:
    """All settings by name, but for neutral ones at their default."""
    neutral = _marked(settings, NEUTRAL)
    values = {field: getattr(settings, field.name) for field in fields(settings)}
    return {f.name: value for f, value in values.items() if f.name not in neutral or value != f.default}


def keyed(settings: Settings) -> dict[str, Any]:
    """What of the settings goes into a step's key."""
    apart = _marked(settings, UNKEYED)
    return {name: value for name, value in stated(settings).items() if name not in apart}


def unkeyed(settings: Settings) -> dict[str, Any]:
    """The settings that decide no result."""
    return {name: getattr(settings, name) for name in _marked(settings, UNKEYED)}


def _marked(settings: Settings, mark: str) -> list[str]:
    return [name for name, hint in hints(type(settings)).items() if mark in getattr(hint, "__metadata__", ())]


def _wrong(value: Any, hint: Any) -> str | None:
    """What a value is that its type does not allow; types themselves are left to mypy and to the reader of a file."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        complaints = [_wrong(value, inner[0]), *(mark.wrong(value) for mark in inner[1:] if isinstance(mark, Range))]
        return next((complaint for complaint in complaints if complaint), None)
    if origin in (Union, UnionType):
        return None if value is None else _wrong(value, next(kind for kind in inner if kind is not type(None)))
    if origin is tuple:
        return next((complaint for item in value if (complaint := _wrong(item, inner[0]))), None)
    if origin is Literal and value not in inner:
        return f"{value!r} is not one of {', '.join(map(str, inner))}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {value}"
    return None
