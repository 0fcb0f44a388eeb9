"""The results as tidy tables: one CSV a kind of record, one row a record, numbers at full precision."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from report.escape import cell
from report.section import Records
from report.sections import SECTIONS
from report.tables import flat
from results import Results

# The order in which the page names the files; one that is not here follows, in the order of the sections.
_ORDER = (
    "headline", "trainings", "curves", "losses", "sweep", "accuracy", "mcnemar", "alone", "strata", "canary",
    "adapters", "pairs", "layers", "projections", "modules", "adapter_layers", "adapter_projections", "adapter_modules",
    "along_pairs", "along_adapters", "directions", "activation_norms", "activation_pairs", "activation_layers",
    "activation_projections", "spectra", "spectra_layers", "spectra_projections", "spectra_modules", "floors", "paths",
    "barriers", "cka_layers", "cka_projections", "teachers", "views", "failures",
)  # fmt: skip


def tables(results: Results) -> dict[str, Records]:
    """File stem -> records, those of every section, each record's nested keys joined by dots."""
    made = {name: function for section in SECTIONS for name, function in section.csv.items()}
    names = [*(name for name in _ORDER if name in made), *(name for name in made if name not in _ORDER)]
    return {name: [flat(row) for row in made[name](results)] for name in names}


def _field(value: object) -> object:
    if isinstance(value, list | tuple):
        joined = " ".join(str(item) for item in value)
        return cell(joined) if any(isinstance(item, str) for item in value) else joined
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return cell(value)
    return "" if value is None else repr(value) if isinstance(value, float) else value


def encode(rows: Records) -> str:
    """Records as CSV text: the union of their keys as heading, ``\\n`` line ends, empty where undefined.

    Text is as it is shown; what a spreadsheet would take for a formula begins with '.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    writer.writerows([_field(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def write(results: Results, folder: Path) -> list[str]:
    """Writes every table that has rows as ``folder/NAME.csv``, takes away stale ones, returns the names."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in tables(results).items():
        path = folder / f"{name}.csv"
        path.unlink(missing_ok=True)
        if rows:
            path.write_text(encode(rows), encoding="utf-8")
            written.append(name)
    return written
