"""The canary: whether the engine really served each adapter."""

from __future__ import annotations

from collections.abc import Callable

from report import formats
from report.model_index import BASE, ModelIndex
from report.section import Section, from_results, rows_at
from report.tables import Cell, Column, Table, number, records, text  # typed soon
from report.typed_soon import named  # typed soon


def canary_table(results: dict, index: ModelIndex) -> Table | None:
    """Whether the engine really served each adapter."""
    rows = (results.get("evaluation") or {}).get("canary") or []

    def value(key: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.significant(row.get(key)))

    def answer(value: bool | None, good: str, bad: str) -> Cell:
        return text(None) if value is None else Cell(good if value else bad, "text" if value else "error")

    def apart(row: dict) -> Cell:
        if row.get("name") == BASE:
            return text(None, "the base itself")
        return answer(row.get("told_apart"), "yes", "no")

    return records(
        "canary",
        "Was each adapter really served?",
        rows,
        [
            named(index),
            (Column("Largest difference", "log-prob"), value("max_difference")),
            (Column("Tolerance", "log-prob"), lambda row: number(formats.rate(row.get("tolerance")))),
            (Column("Effect of the adapter", "log-prob"), value("effect")),
            (Column("Agrees", kind="text"), lambda row: answer(row.get("passed"), "yes", "no: not served")),
            (Column("Told apart from base", kind="text"), apart),
        ],
        "The engine’s top log-probabilities against Transformers with PEFT in float32, largest absolute "
        "difference. Where an adapter’s own effect is below the tolerance, agreement cannot show that it was "
        f"applied.{_controls(results)}",
    )


def _controls(results: dict) -> str:
    """What the base and the adapter of zeros gave, which are asked before each adapter."""
    names = {"base": "the base", "zero": "an adapter of zeros"}
    parts = [
        f"{names.get(row['name'], row['name'])} {'agreed' if row.get('passed') else 'DID NOT AGREE'} in "
        f"{formats.count(row.get('checks'))} checks (at most {formats.significant(row.get('max_difference'))} off)"
        for row in (results.get("evaluation") or {}).get("controls") or []
        if row.get("name")
    ]
    return f" Before each: {formats.listing(parts)}." if parts else ""


SECTION = Section(
    key="canary",
    title="Canary: was each adapter really served?",
    step="evaluate",
    tables=from_results(canary_table),
    csv={"canary": rows_at("evaluation", "canary")},
)
