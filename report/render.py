"""The report's folder: the page, the numbers behind it, the CSV files and the figures.

``render`` is a function of its arguments alone: the same results, provenance and texts give the same bytes. All
text that comes from models or data is put as ``report.escape`` says and escaped by the template engine; only the
drawings and the style sheet, which are made here, go in as they are.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from report import csv_export, figures, page, text_pages
from report.escape import shown as as_shown
from report.model_index import model_index
from report.section import Source
from results import Results, dump

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "report.html"


def render(results: Results, provenance: dict, out: Path, shown: dict | None = None) -> None:
    """Writes the report of a study into the folder ``out``.

    ``report.html`` (self-contained, no script), ``results.json`` and ``provenance.json`` (sorted keys, exact
    floats), ``csv/*.csv`` (one tidy table each), ``figures/*.svg`` and ``*.png``. A part of ``results`` that may be
    absent is said on the page where it is. A number that is not finite is a ``ValueError`` that names its place, raised
    before anything is written.

    ``shown`` holds the texts that the results do not: with them ``answers.html`` and ``rollouts.html`` are written
    too, and linked (see ``text_pages.make``).
    """
    files = {
        "results.json": canonical(dump(results), "results"),
        "provenance.json": canonical(provenance, "provenance"),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_text(content, encoding="utf-8")
    source = Source(results, provenance, model_index(results))
    written = csv_export.write(results, out / "csv")
    drawn = figures.draw(results, source.index, out / "figures")
    sections = page.fill(source, drawn)
    environment, style = _environment(), _read("style.css")
    tables, sheet = page.tables_beside(sections), style + _read("sheet.css")
    beside = text_pages.make(shown or {}, results, source.index, tables, environment, sheet)
    values = page.values(source, sections, written, list(beside))
    made = {PAGE: environment.get_template(PAGE).render(**values, style=Markup(style), language="en"), **beside}
    for name, text in made.items():
        (out / name).write_text(text, encoding="utf-8")
    for name in text_pages.TITLES.keys() - made.keys():
        (out / name).unlink(missing_ok=True)  # an earlier report's


def canonical(value: dict, name: str) -> str:
    """JSON with sorted keys, indent 1, floats as ``repr``; ValueError names a number that is not finite."""
    try:
        return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        if place := _not_finite(value, name):
            raise ValueError(f"{place} is not a finite number: write None for what is undefined") from None
        raise


def _not_finite(value: Any, place: str) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return place
    items: Any = ()
    if isinstance(value, dict):
        items = ((f"{place}.{key}", inner) for key, inner in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{place}[{i}]", inner) for i, inner in enumerate(value))
    return next((bad for name, inner in items if (bad := _not_finite(inner, name))), None)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, finalize=_finalize,
    )  # fmt: skip


def _finalize(value: Any) -> Any:
    """What a template puts on a page: all foreign text passes here."""
    return as_shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
