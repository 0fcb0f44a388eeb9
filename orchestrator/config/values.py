"""Types of the values of a study: frozen, and strict, so that a slip is not coerced to a number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    create_model,
)
from pydantic_core import CoreSchema, core_schema

from execution.settings import bare, hints, stated
from orchestrator.config.yaml_values import Ambiguous

T = TypeVar("T")


def hub_like(name: str) -> bool:
    """Whether ``name`` may be a dataset on a hub: OWNER/NAME without the extension of a file of rows."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not name.endswith((".jsonl", ".json", ".parquet"))


def here(name: str) -> Path | None:
    """The file or folder ``name``, else None. A study's paths are absolute, so a relative one is a hub name."""
    path = Path(name)
    return path if path.is_absolute() and path.exists() else None


def certain(value: Any) -> Any:
    """``value`` unchanged; ``ValueError`` if YAML readers disagree about its type."""
    if isinstance(value, Ambiguous):
        raise ValueError(
            f"{str(value)!r} is a string here and a number, a boolean or a date to other readers: numbers are decimal "
            "(12, 0.5, 1e-5), booleans true and false; put a string in quotes"
        )
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        certain(item)
    return value


def _digits(value: Any) -> Any:
    """Accept a commit or a tag of digits only, which YAML reads as a number, as a string."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=96)]
Free = Annotated[Any, BeforeValidator(certain)]
Revision = Annotated[str, BeforeValidator(_digits)]
Several = Annotated[tuple[T, ...], Field(strict=False)]  # accepts YAML's lists; their items stay strict
Two = Annotated[tuple[T, T], Field(strict=False)]


class Frozen(BaseModel):
    """A part of a study. Strict: no number is accepted as a string, no boolean as a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class _Declared:
    """Pydantic's schema for a dataclass of settings: its fields are the keys."""

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            lambda part: kind(**{field.name: getattr(part, field.name) for field in fields(kind)}),
            handler.generate_schema(_part(kind)),
            serialization=core_schema.plain_serializer_function_ser_schema(stated),
        )


Declared = Annotated[T, _Declared()]  # of a subclass of execution.settings.Settings


def changed(settings: T, values: Mapping[str, Any]) -> T:
    """``settings``, of a dataclass of them, with other ``values`` by name, as strict as a study; ``ValueError``."""
    kind: Any = type(settings)
    told = {field.name: getattr(settings, field.name) for field in fields(kind)}
    try:
        part = _part(kind).model_validate(told | dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {message[:1].lower()}{message[1:]}, not {str(first['input'])[:100]!r}") from None
    result: T = kind(**{field.name: getattr(part, field.name) for field in fields(kind)})
    return result


@cache
def _part(kind: Any) -> type[Frozen]:
    """The dataclass as a pydantic model with the same keys, types, bounds and defaults, strict like ``Frozen``."""
    model_fields: dict[str, Any] = {}
    for field, hint in zip(fields(kind), hints(kind).values(), strict=True):
        several = get_origin(bare(hint)) is tuple
        default = ... if field.default is MISSING else field.default
        model_fields[field.name] = (Annotated[hint, Field(strict=False)] if several else hint, default)
    return create_model(kind.__name__, __base__=Frozen, __doc__=kind.__doc__, **model_fields)
