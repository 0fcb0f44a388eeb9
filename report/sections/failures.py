"""Steps that did not finish, with their errors."""

from __future__ import annotations

from report.section import Section, rows_at
from report.tables import Column, Table, records, text


def failures_table(results: dict) -> Table | None:
    """Steps that did not finish, why, and what waited for them in vain."""
    return records(
        "failures",
        "Steps that did not finish",
        results.get("failures") or [],
        [
            (Column("Step", kind="text"), lambda row: text(row.get("step"))),
            (Column("Error", kind="text"), lambda row: text(row.get("error"))),
            (
                Column("Not run for want of it", kind="text"),
                lambda row: text(", ".join(row.get("dependants") or [])),
            ),
        ],
        "A failed step does not stop the others; what depended on it is missing above.",
    )


def _absent(results: dict) -> str:
    unfinished = results.get("unfinished") or {}
    undone = len(unfinished.get("waiting") or [])
    return f"No step has failed; {undone} are not done." if unfinished else "Nothing: every step finished."


SECTION = Section(
    key="failures",
    title="What failed, and why",
    tables=lambda source: [failures_table(source.results)],
    csv={"failures": rows_at("failures")},
    absent=_absent,
)
