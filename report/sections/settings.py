"""Settings, versions and machine, as names and values."""

from __future__ import annotations

from report.section import Section, Source
from report.tables import Table, pairs
from results import dump


def _tables(source: Source) -> list[Table | None]:
    results, provenance = source.results, source.provenance
    engine = results.evaluation.engine if results.evaluation else None
    plan = (
        ("settings", "The study", results.study and results.study.settings, "Every setting given."),
        ("base", "The base", results.base and dump(results.base), "The model that every update is added to."),
        ("engine", "The engine that answered", engine and dump(engine), "Answers depend on these too."),
        ("versions", "Versions", provenance.get("versions"), "The software of this run."),
        ("machine", "Machine", provenance.get("machine"), "What this run had."),
    )
    return [pairs(key, title, values or {}, words, folded=True) for key, title, values, words in plan]


SECTION = Section(key="settings", title="Settings and versions", tables=_tables)
