"""The least that a part of the results can hold: null where it may be, absent where it may be."""

from __future__ import annotations

from typing import Any, get_args

from results.part import Part


def hollow(value: Any) -> Any:
    """``value`` as JSON values: of every part in it what may be absent is, and what may be null is."""
    if isinstance(value, Part):
        fields = {name: field for name, field in type(value).model_fields.items() if field.is_required()}
        return {
            field.alias or name: None if type(None) in get_args(field.annotation) else hollow(getattr(value, name))
            for name, field in fields.items()
        }
    if isinstance(value, list):
        return [hollow(item) for item in value]
    return value
