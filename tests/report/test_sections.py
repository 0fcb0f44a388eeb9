"""The list of sections: whole, without two of one name, and all that a new subject needs."""

from __future__ import annotations

import pkgutil
from collections import Counter
from pathlib import Path

import pytest

from report import csv_export, figures, sections
from report.plotting import COLUMN, Canvas, Made
from report.render import render
from report.section import Section, rows_at, unrolled
from report.sections import SECTIONS
from report.tables import pairs
from tests.report.example_study import provenance, results
from tests.report.test_render import Page


def test_every_module_of_a_subject_is_in_the_list() -> None:
    modules = {module.name for module in pkgutil.iter_modules(sections.__path__)}
    assert [getattr(sections, name).SECTION in SECTIONS for name in sorted(modules)] == [True] * len(SECTIONS)


def test_no_two_sections_have_one_key_or_write_one_file() -> None:
    names = [f"page {section.key}" for section in SECTIONS]
    names += [f"figure {key}" for section in SECTIONS for key in section.figures]
    names += [f"csv {name}" for section in SECTIONS for name in section.csv]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_a_figure_is_drawn_by_its_own_section() -> None:
    for section in SECTIONS:
        module = f"report.sections.{'opening' if section.key == 'headline' else section.key}"
        assert all(function.__module__.startswith(module) for function in section.figures.values())


def test_the_page_names_the_csv_files_in_one_order() -> None:
    """Those of the list first; a new section's follow, so that it need not stand in it."""
    made, named = [name for section in SECTIONS for name in section.csv], list(csv_export._ORDER)
    assert set(named) <= set(made), "no name is stale"
    assert list(csv_export.tables(results())) == named + [name for name in made if name not in named]


def test_a_section_stands_where_the_list_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("report.figures.FIGURES", {})
    render(results(), provenance(), tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    keys = [section.key for section in SECTIONS]
    assert [key for key in page.ids if key in keys] == keys
    links = [value.removeprefix("#") for name, value in page.values if name == "href" and value.startswith("#")]
    assert links == [*keys[1:], "definitions"], "the first one is the first screen"


def test_one_record_is_all_that_a_new_subject_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(results: dict, index: object, canvas: Canvas) -> Made:
        if "noise" not in results:
            return None
        figure, ((axes,),) = canvas.grid(COLUMN, 2)
        axes.plot(results["noise"]["scale"])
        return figure, "Scale of the noise", "Of every step."

    new = Section(
        "noise", "Gradient noise", "noise",
        tables=lambda source: [pairs("noise", "Noise", source.results.get("noise") or {}, "Its scale.")],
        figures={"noise": line}, csv={"noise": lambda results: unrolled([results.get("noise") or {}], (), ("scale",))},
    )  # fmt: skip
    monkeypatch.setattr(figures, "FIGURES", new.figures)
    SECTIONS.append(new)
    try:
        render({"noise": {"scale": [3.0, 2.5]}}, {}, tmp_path / "whole")
        render({"failures": [{"step": "noise/all", "error": "out of memory"}]}, {}, tmp_path / "failed")
    finally:
        SECTIONS.remove(new)
    page = Page((tmp_path / "whole" / "report.html").read_text(encoding="utf-8"))
    assert {"noise", "table-noise", "figure-noise"} <= set(page.ids) and "Gradient noise" in page.words
    assert (tmp_path / "whole" / "csv" / "noise.csv").read_text() == "scale\n3.0\n2.5\n"
    words = Page((tmp_path / "failed" / "report.html").read_text(encoding="utf-8")).words
    assert "Not measured: noise/all failed (out of memory)." in words


def test_records_stand_at_their_place() -> None:
    assert rows_at("a", "b")({"a": {"b": [{"c": 1}]}}) == [{"c": 1}]
    assert rows_at("a", "b")({}) == rows_at("a")({"a": None}) == rows_at("a", "b")({"a": None}) == []
    rows = [{"name": "x", "step": [1, 2], "loss": [0.5]}, {"name": "y", "step": None}]
    assert unrolled(rows, ("name",), ("step", "loss")) == [
        {"name": "x", "step": 1, "loss": 0.5}, {"name": "x", "step": 2, "loss": None},
    ]  # fmt: skip
