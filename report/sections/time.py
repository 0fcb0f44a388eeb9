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


def estimate_table(provenance: dict) -> Table | None:
    """Per kind of step what was estimated when its run began beside what it took; of steps that have both."""
    kinds: dict[str, list[dict]] = {}
    for row in provenance.get("steps") or []:
        if row.get("estimated_seconds") is not None and row.get("seconds") is not None:
            kinds.setdefault(str(row["step"]).partition("/")[0], []).append(row)
    rows: list[dict] = [
        {
            "kind": kind,
            "steps": len(mine),
            "estimated": sum(row["estimated_seconds"] for row in mine),
            "took": sum(row["seconds"] for row in mine),
            "rate": " and ".join(dict.fromkeys(str(row.get("rate")) for row in mine)),
        }
        for kind, mine in kinds.items()
    ]
    if not rows:
        return None
    return records(
        "estimates",
        "Estimate and truth",
        rows,
        [
            (Column("Kind of step", kind="text"), lambda row: text(row["kind"])),
            (Column("Steps"), lambda row: number(str(row["steps"]))),
            (Column("Estimated"), lambda row: number(formats.seconds(row["estimated"]))),
            (Column("Took"), lambda row: number(formats.seconds(row["took"]))),
            (Column("Took / estimated"), lambda row: number(_ratio(row["took"], row["estimated"]))),
            (Column("Rate", kind="text"), lambda row: text(row["rate"])),
        ],
        "What plan estimated when the steps’ run began, and by whose rate: assumed, calibrated on the machine (doctor "
        "--measure), or measured on finished steps of the same study. Steps took their start-up too, which an estimate "
        "for GPUs does not count.",
    )


def _ratio(took: float, estimated: float) -> str:
    return f"{took / estimated:.2f}" if estimated > 0 else formats.MISSING


SECTION = Section(
    key="time",
    title="Where the time went",
    tables=lambda source: [time_table(source.provenance), estimate_table(source.provenance)],
)
