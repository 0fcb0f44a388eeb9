"""Is the learning rate the cause: methods at equal settings from all trainings of both, and each along its rate."""

from __future__ import annotations

from report.section import Section, csv_of, from_results
from report.sections.sweep import matched_figure, matched_tables, scaled
from report.sections.sweep.by_rate import sweep, sweep_table

SECTION = Section(
    key="sweep",
    title="Is the learning rate the cause?",
    step="train",
    tables=from_results(matched_tables.matched_table, matched_tables.behaviour_table, scaled.table, sweep_table),
    figures={matched_figure.KEY: matched_figure.figure, "sweep": sweep},
    csv={"matched": matched_tables.as_csv}
    | scaled.CSV
    | csv_of(lambda results: results.sweep, {"sweep": lambda sweep: sweep.points}),
)
