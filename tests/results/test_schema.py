"""The published JSON Schema: current, whole, and of one mind with the types."""

from __future__ import annotations

import json

import jsonschema
import pytest

from results.schema import PUBLISHED, json_schema, text
from tests.report.drawn_study import drawn
from tests.report.example_study import results as example


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schema_is_current() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == text(), "run `python -m results`"


def test_examples_fit_it(validator: jsonschema.Draft202012Validator) -> None:
    for told in (example(), *(drawn(seed).results for seed in range(5))):
        validator.validate(told)


def test_an_absent_part_is_not_null(validator: jsonschema.Draft202012Validator) -> None:
    told = example()
    assert validator.is_valid({key: part for key, part in told.items() if key != "sweep"})
    assert not validator.is_valid(told | {"sweep": None})
    assert not validator.is_valid(told | {"swep": told["sweep"]})


def test_every_null_has_its_rule() -> None:
    """In the field's own words, so that whoever reads the schema alone finds it."""
    fields = [
        (f"{name}.{key}", field)
        for name, part in json_schema()["$defs"].items()
        for key, field in part.get("properties", {}).items()
    ]
    may_be_null = {name: field for name, field in fields if '"null"' in json.dumps(field)}
    assert len(may_be_null) > 100
    assert [name for name, field in may_be_null.items() if "null" not in field.get("description", "").lower()] == []
