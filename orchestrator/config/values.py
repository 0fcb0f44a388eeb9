"""The kinds of values that a study is made of: frozen, and strict where a slip would pass for a number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from orchestrator.config.yaml_values import Ambiguous

T = TypeVar("T")


def hub_like(name: str) -> bool:
    """Whether this may be the name of a dataset on a hub: OWNER/NAME, and not that of a file of rows."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not name.endswith((".jsonl", ".json", ".parquet"))


def here(name: str) -> Path | None:
    """The file or folder of this name; None where there is none. A study's paths are whole: others name the hub's."""
    path = Path(name)
    return path if path.is_absolute() and path.exists() else None


def certain(value: Any) -> Any:
    """A value of any kind, if it is one to every reader of YAML."""
    if isinstance(value, Ambiguous):
        raise ValueError(
            f"{str(value)!r} is text here and a number, a boolean or a date to others: numbers are decimal (12, 0.5, "
            "1e-5), booleans true and false; put quotes around a text"
        )
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        certain(item)
    return value


def _digits(value: Any) -> Any:
    """A commit or a tag that is all digits is a text too."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=96)]
Share = Annotated[float, Field(ge=0, le=1)]
Every = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[float, Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Free = Annotated[Any, BeforeValidator(certain)]
Revision = Annotated[str, BeforeValidator(_digits)]
Several = Annotated[tuple[T, ...], Field(strict=False)]  # YAML's lists; what is in them stays strict
Two = Annotated[tuple[T, T], Field(strict=False)]


class Frozen(BaseModel):
    """A part of a study. Strict: a number is no text, a boolean no number, whatever the setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
