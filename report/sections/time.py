"""Start-up and work of each step."""

from __future__ import annotations

from report import formats
from report.section import Section
from report.tables import Column, Table, number, records, text


def time_table(provenance: dict) -> Table | None:
    """Start-up and work of each step; a step's ``seconds`` hold its ``startup_seconds``."""
    steps = provenance.get("steps") or []

    def work(row: dict) -> float | None:
        if row.get("seconds") is None:
            return None
        return row["seconds"] - (row.get("startup_seconds") or 0.0)

    wall = provenance.get("wall_seconds")
    together = f" The whole run took {formats.seconds(wall)} by the clock." if wall is not None else ""
    return records(
        "time",
        "Where the time went",
        steps,
        [
            (Column("Step", kind="text"), lambda row: text(row.get("step"))),
            (Column("Start-up"), lambda row: number(formats.seconds(row.get("startup_seconds")))),
            (Column("Work"), lambda row: number(formats.seconds(work(row)))),
            (Column("Memory", "GiB"), lambda row: number(formats.gib(row.get("peak_gib")))),
            (Column("Memory of the GPU", "GiB"), lambda row: number(formats.gib(row.get("gpu_peak_gib")))),
            (
                Column("Taken from the store", kind="text"),
                lambda row: text(None if row.get("cached") is None else "yes" if row["cached"] else "no"),
            ),
        ],
        "Start-up is imports, workers and engines before the first useful operation. Memory is the most that "
        "the step’s own process used. Steps run side by "
        f"side, so the column’s sum is not the run’s length.{together}",
        folded=len(steps) > 12,
    )


SECTION = Section(key="time", title="Where the time went", tables=lambda source: [time_table(source.provenance)])
