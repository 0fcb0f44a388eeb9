"""The JSON Schema of ``results.json``, as it is published in ``docs/results.schema.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from results.document import VERSION, Results

PUBLISHED = Path(__file__).parents[1] / "docs" / "results.schema.json"


class _Plain(GenerateJsonSchema):
    """Without titles that repeat the keys, and without defaults: an absent key is absent, not null."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of the file as a whole."""
    schema = Results.model_json_schema(schema_generator=_Plain, mode="validation")
    return {"$schema": _Plain.schema_dialect, "title": f"results.json, version {VERSION}"} | {
        name: part for name, part in schema.items() if name != "title"
    }


def text() -> str:
    """The schema as it is written into :data:`PUBLISHED`."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
