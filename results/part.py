"""What the parts of ``results.json`` have in common: frozen, strict, no unknown key, and keys that may be absent.

A field is one of these:

- ``X``: the key is always there and never null;
- ``X | None`` without a default: the key is always there; its description says where it is null;
- ``MayBeAbsent[X]``: the key may be absent, and is never null. In Python it then reads as None;
- ``X | None = None``: the key may be absent, and may be null too. Its description says when it is which;
- ``X = value``: the key may be absent, which means that value, and is never null.

Fields stand in the order in which the code that measures them writes them, so that a table of dumped rows has its
columns in that order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema

T = TypeVar("T")


_SHARED: dict[frozenset[str], set[str]] = {}


class Part(BaseModel):
    """A part of the results. Strict: a number is no text, a boolean no number; no number is NaN or infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, serialize_by_alias=True)

    def model_post_init(self, context: Any, /) -> None:
        """Parts with the same keys share the set of them: a row's own takes more memory than its values."""
        own = self.__pydantic_fields_set__
        object.__setattr__(self, "__pydantic_fields_set__", _SHARED.setdefault(frozenset(own), own))


class _NeverNull:
    """Takes null out of an optional type's schema: what is left out of the file has no key at all."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        assert schema["type"] == "nullable", "MayBeAbsent is given a type without None"
        return schema["schema"]


MayBeAbsent = Annotated[T | None, _NeverNull()]


def present(**parts: Any) -> dict[str, Any]:
    """Those of the parts that are not None: what ``MayBeAbsent`` fields are made of."""
    return {name: part for name, part in parts.items() if part is not None}


Number = int | float
"""A number that is whole in some files and not in others, such as a median of counts: each keeps the kind it has."""

Matrix = list[list[float]]


class GramCosine:
    """Cosines by name from a Gram, -1 to 1; None for a name that it does not hold, and where one of the two is zero."""

    def __init__(self, names: Sequence[str], gram: Matrix) -> None:
        self.place = {name: i for i, name in enumerate(names)}
        self.gram, self.norms = gram, [math.sqrt(max(0.0, row[i])) for i, row in enumerate(gram)]

    def __call__(self, a: str, b: str) -> float | None:
        i, j = self.place.get(a), self.place.get(b)
        if i is None or j is None or not self.norms[i] or not self.norms[j]:
            return None
        return max(-1.0, min(1.0, self.gram[i][j] / (self.norms[i] * self.norms[j])))
