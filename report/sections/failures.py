"""Steps that did not finish, with their errors."""

from __future__ import annotations

from report.section import Section, csv_of
from report.tables import Column, Table, records, text
from results import Results


def failures_table(results: Results) -> Table | None:
    """Steps that did not finish, why, and what waited for them in vain."""
    return records(
        "failures",
        "Steps that did not finish",
        results.failures or [],
        [
            (Column("Step", kind="text"), lambda row: text(row.step)),
            (Column("Error", kind="text"), lambda row: text(row.error)),
            (Column("Not run for want of it", kind="text"), lambda row: text(", ".join(row.dependants))),
        ],
        "A failed step does not stop the others; what depended on it is missing above.",
    )


def _absent(results: Results) -> str:
    if results.unfinished is None:
        return "Nothing: every step finished."
    return f"No step has failed; {len(results.unfinished.waiting)} are not done."


SECTION = Section(
    key="failures",
    title="What failed, and why",
    tables=lambda source: [failures_table(source.results)],
    csv=csv_of(lambda results: results.failures, {"failures": lambda failures: failures}),
    absent=_absent,
)
