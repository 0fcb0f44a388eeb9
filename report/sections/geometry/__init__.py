"""Geometry of the updates: norms, cosines and principal angles of every pair, by layer and along training."""

from __future__ import annotations

from report.section import Records, Section, csv_of, from_results
from report.sections.geometry.figures import angles, cosines, layers, parting
from report.sections.geometry.tables import adapters_table, pairs_table, span_table
from results import Results, dump


def _floor_rows(results: Results) -> Records:
    if results.geometry is None:
        return []
    chance = results.geometry.chance
    floors = [("ambient", chance.ambient), ("shared_a", chance.shared_a), *results.geometry.floors.pairs]
    return [{"floor": name, **dump(row)} for name, row in floors]


SECTION = Section(
    key="geometry",
    title="Geometry of the updates",
    step="geometry",
    tables=from_results(adapters_table, pairs_table, span_table),
    figures={"cosines": cosines, "angles": angles, "layers": layers, "parting": parting},
    csv=csv_of(
        lambda results: results.geometry,
        {
            "adapters": lambda geometry: geometry.adapters,
            "pairs": lambda geometry: geometry.pairs,
            "layers": lambda geometry: geometry.layers,
            "projections": lambda geometry: geometry.projections,
            "modules": lambda geometry: geometry.modules,
            "adapter_layers": lambda geometry: geometry.adapter_layers,
            "adapter_projections": lambda geometry: geometry.adapter_projections,
            "adapter_modules": lambda geometry: geometry.adapter_modules,
            "along_pairs": lambda geometry: geometry.along.pairs,
            "along_adapters": lambda geometry: geometry.along.adapters,
        },
    )
    | csv_of(lambda results: results.directions, {"directions": lambda directions: directions.adapters})
    | {"floors": _floor_rows},
)
