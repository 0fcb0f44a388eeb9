"""Geometry of the updates: norms, cosines and principal angles of every pair, by layer and along training."""

from __future__ import annotations

from report import typed_soon as headline  # typed soon
from report.section import Section, from_results, rows_at
from report.sections.geometry.figures import angles, cosines, layers, parting
from report.sections.geometry.tables import adapters_table, pairs_table, span_table


def _floor_rows(results: dict) -> list[dict]:
    chance = (results.get("geometry") or {}).get("chance") or {}
    floors = [*chance.items(), *headline.pairs_of_floors(results)]
    return [{"floor": name, **entry} for name, entry in floors if isinstance(entry, dict)]


SECTION = Section(
    key="geometry",
    title="Geometry of the updates",
    step="geometry",
    tables=from_results(adapters_table, pairs_table, span_table),
    figures={"cosines": cosines, "angles": angles, "layers": layers, "parting": parting},
    csv={
        **{
            key: rows_at("geometry", key)
            for key in (
                "adapters", "pairs", "layers", "projections", "modules", "adapter_layers", "adapter_projections",
                "adapter_modules",
            )
        },
        "along_pairs": rows_at("geometry", "along", "pairs"),
        "along_adapters": rows_at("geometry", "along", "adapters"),
        "directions": rows_at("directions", "adapters"),
        "floors": _floor_rows,
    },
)  # fmt: skip
