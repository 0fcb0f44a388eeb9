"""``results.json`` in types: what a run or a comparison found, for the report and for anyone who reads the file.

It knows none of the packages that measure, and no heavy library: pydantic alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from results.document import VERSION, Results
from results.part import Part

__all__ = ["VERSION", "Results", "dump", "load"]


def load(path: Path) -> Results:
    """The results in a file. ``ValueError`` says in a line what it is not: JSON, of this version, of the schema."""
    try:
        text = path.read_bytes()
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error})") from None
    version = document.get("version") if isinstance(document, dict) else None
    if version != VERSION:
        of = "a version that is not told" if version is None else f"version {version!r}"
        raise ValueError(f"{path} holds results of {of}, this reads version {VERSION}: make the report anew")
    return Results.model_validate_json(text)


def dump(part: Part) -> dict[str, Any]:
    """Results, or a part, as plain JSON values, equal to what it was read from: absent keys stay absent, nulls stay."""
    return part.model_dump(mode="json", exclude_unset=True)
