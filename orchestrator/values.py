"""The kinds of values that a study is made of: frozen, and strict where a slip would pass for a number."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def number(value: Any) -> Any:
    """What is meant as a number; ``true`` is none, though Python would count it as 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=96)]
Share = Annotated[float, Field(ge=0, le=1)]
Every = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Positive = Annotated[float, BeforeValidator(number), Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
