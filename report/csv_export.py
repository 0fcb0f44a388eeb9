"""The results as tidy tables: one CSV a kind of record, one row a record, numbers at full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from report import headline
from report.escape import cell
from report.tables import flat


def _series(rows: Iterable[dict], keys: list[str], lists: list[str]) -> list[dict]:
    """Records whose values are parallel lists, unrolled to one row an element."""
    unrolled = []
    for row in rows:
        length = max((len(row.get(key) or []) for key in lists), default=0)
        for i in range(length):
            values = {key: (row.get(key) or []) for key in lists}
            picked = {key: found[i] if i < len(found) else None for key, found in values.items()}
            unrolled.append({**{key: row.get(key) for key in keys}, **picked})
    return unrolled


def _by_task(results: dict, key: str) -> list[dict]:
    tasks = (results.get("evaluation") or {}).get("tasks") or []
    return [{"task": task.get("task"), **row} for task in tasks for row in task.get(key) or []]


def tables(results: dict) -> dict[str, list[dict]]:
    """File stem -> records, in the order of the results, each record's nested keys joined by dots."""
    geometry = results.get("geometry") or {}
    activations, spectra = results.get("activations") or {}, results.get("spectra") or {}
    rollouts = results.get("rollouts") or {}
    similarity = results.get("similarity") or {}
    floors = [*(geometry.get("chance") or {}).items(), *headline.pairs_of_floors(results)]
    curve_lists = ["step", "loss", "grad_norm", "learning_rate", "a_moved_rel", "b_norm"]
    found = {
        "headline": results.get("headline") or [],
        "trainings": results.get("trainings") or [],
        "curves": _series(results.get("curves") or [], ["name"], curve_lists),
        "losses": results.get("losses") or [],
        "sweep": (results.get("sweep") or {}).get("points") or [],
        "accuracy": _by_task(results, "models"),
        "mcnemar": _by_task(results, "pairs"),
        "alone": _by_task(results, "alone"),
        "strata": _by_task(results, "strata"),
        "canary": (results.get("evaluation") or {}).get("canary") or [],
        "adapters": geometry.get("adapters") or [],
        "pairs": geometry.get("pairs") or [],
        "layers": geometry.get("layers") or [],
        "projections": geometry.get("projections") or [],
        "modules": geometry.get("modules") or [],
        "adapter_layers": geometry.get("adapter_layers") or [],
        "adapter_projections": geometry.get("adapter_projections") or [],
        "adapter_modules": geometry.get("adapter_modules") or [],
        "along_pairs": (geometry.get("along") or {}).get("pairs") or [],
        "along_adapters": (geometry.get("along") or {}).get("adapters") or [],
        "directions": (results.get("directions") or {}).get("adapters") or [],
        "activation_norms": activations.get("adapters") or [],
        "activation_pairs": activations.get("pairs") or [],
        "activation_layers": activations.get("layers") or [],
        "activation_projections": activations.get("projections") or [],
        "spectra": spectra.get("adapters") or [],
        "spectra_layers": spectra.get("layers") or [],
        "spectra_projections": spectra.get("projections") or [],
        "spectra_modules": spectra.get("modules") or [],
        "floors": [{"floor": name, **entry} for name, entry in floors if isinstance(entry, dict)],
        "paths": _series((results.get("connectivity") or {}).get("paths") or [], ["a", "b"], ["weights", "loss"]),
        "barriers": [
            {key: row.get(key) for key in ("a", "b", "barrier")}
            for row in (results.get("connectivity") or {}).get("paths") or []
        ],
        "cka_layers": similarity.get("hidden") or [],
        "cka_projections": similarity.get("modules") or [],
        "teachers": rollouts.get("teachers") or [],
        "views": rollouts.get("views") or [],
        "failures": results.get("failures") or [],
    }
    return {name: [flat(row) for row in rows] for name, rows in found.items()}


def _field(value: object) -> object:
    if isinstance(value, list | tuple):
        joined = " ".join(str(item) for item in value)
        return cell(joined) if any(isinstance(item, str) for item in value) else joined
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return cell(value)
    return "" if value is None else repr(value) if isinstance(value, float) else value


def encode(rows: list[dict]) -> str:
    """Records as CSV text: the union of their keys as heading, ``\\n`` line ends, empty where undefined.

    Text is as it is shown; what a spreadsheet would take for a formula begins with '.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    writer.writerows([_field(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def write(results: dict, folder: Path) -> list[str]:
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
