"""The canary: whether the engine really served each adapter."""

from __future__ import annotations

from report import formats
from report.model_index import BASE, ModelIndex
from report.section import Section, csv_of, from_results
from report.tables import Cell, Column, Table, named, number, records, text
from results import Results
from results.evaluation import CanaryRow, Control


def canary_table(results: Results, index: ModelIndex) -> Table | None:
    """Whether the engine really served each adapter."""
    if results.evaluation is None:
        return None

    def answer(value: bool, bad: str) -> Cell:
        return Cell("yes", "text") if value else Cell(bad, "error")

    def apart(row: CanaryRow) -> Cell:
        return text(None, "the base itself") if row.name == BASE else answer(row.told_apart, "no")

    return records(
        "canary",
        "Was each adapter really served?",
        results.evaluation.canary or [],
        [
            named(index),
            (Column("Largest difference", "log-prob"), lambda row: number(formats.significant(row.max_difference))),
            (Column("Tolerance", "log-prob"), lambda row: number(formats.rate(row.tolerance))),
            (Column("Effect of the adapter", "log-prob"), lambda row: number(formats.significant(row.effect))),
            (Column("Agrees", kind="text"), lambda row: answer(row.passed, "no: not served")),
            (Column("Told apart from base", kind="text"), apart),
        ],
        "The engine’s top log-probabilities against Transformers with PEFT in float32, largest absolute "
        "difference. Where an adapter’s own effect is below the tolerance, agreement cannot show that it was "
        f"applied.{_controls(results.evaluation.controls or [])}",
    )


def _controls(rows: list[Control]) -> str:
    """What the base and the adapter of zeros gave, which are asked before each adapter."""
    parts = [
        f"{'the base' if row.name == BASE else 'an adapter of zeros'} {'agreed' if row.passed else 'DID NOT AGREE'} in "
        f"{formats.count(row.checks)} checks (at most {formats.significant(row.max_difference)} off)"
        for row in rows
    ]
    return f" Before each: {formats.listing(parts)}." if parts else ""


SECTION = Section(
    key="canary",
    title="Canary: was each adapter really served?",
    step="evaluate",
    tables=from_results(canary_table),
    csv=csv_of(lambda results: results.evaluation, {"canary": lambda evaluation: evaluation.canary or ()}),
)
