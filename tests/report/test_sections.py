"""The list of sections: whole, without two of one name, and all that a new subject needs."""

from __future__ import annotations

import pkgutil
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from report import csv_export, figures, sections
from report.model_index import model_index
from report.plotting import COLUMN, Canvas, Made
from report.render import render
from report.section import Section, Source, csv_of
from report.sections import SECTIONS
from report.sections.opening import directions_table
from report.tables import Table, pairs
from results import VERSION, Results, dump
from results.part import MayBeAbsent, Part
from tests.report.example_study import provenance, typed
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
    assert list(csv_export.tables(typed())) == named + [name for name in made if name not in named]


def test_a_section_stands_where_the_list_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("report.figures.FIGURES", {})
    render(typed(), provenance(), tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    keys = [section.key for section in SECTIONS]
    assert [key for key in page.ids if key in keys] == keys
    links = [value.removeprefix("#") for name, value in page.values if name == "href" and value.startswith("#")]
    assert links == [*keys[1:], "definitions"], "the first one is the first screen"


class NoiseAtStep(Part):
    scale: float


class Noise(Part):
    steps: list[NoiseAtStep]


class WithNoise(Results):
    noise: MayBeAbsent[Noise] = None


def _noise(results: Results) -> Noise | None:
    assert isinstance(results, WithNoise)
    return results.noise


def test_one_record_and_the_parts_type_are_all_that_a_new_subject_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def table(source: Source) -> list[Table | None]:
        found = _noise(source.results)
        return [pairs("noise", "Noise", {"scale": [row.scale for row in found.steps]}, "Its scale.") if found else None]

    def line(results: Results, index: object, canvas: Canvas) -> Made:
        found = _noise(results)
        if found is None:
            return None
        figure, ((axes,),) = canvas.grid(COLUMN, 2)
        axes.plot([row.scale for row in found.steps])
        return figure, "Scale of the noise", "Of every step."

    new = Section(
        "noise", "Gradient noise", "noise",
        tables=table, figures={"noise": line}, csv=csv_of(_noise, {"noise": lambda noise: noise.steps}),
    )  # fmt: skip
    monkeypatch.setattr(figures, "FIGURES", new.figures)
    SECTIONS.append(new)
    noise = {"steps": [{"scale": 3.0}, {"scale": 2.5}]}
    failure = {"step": "noise/all", "error": "out of memory", "dependants": []}
    try:
        for folder, given in {"whole": {"noise": noise}, "failed": {"failures": [failure]}}.items():
            read = WithNoise.model_validate({"version": VERSION, "trainings": [], **given})
            render(read, {}, tmp_path / folder)
    finally:
        SECTIONS.remove(new)
    page = Page((tmp_path / "whole" / "report.html").read_text(encoding="utf-8"))
    assert {"noise", "table-noise", "figure-noise"} <= set(page.ids) and "Gradient noise" in page.words
    assert (tmp_path / "whole" / "csv" / "noise.csv").read_text() == "scale\n3.0\n2.5\n"
    words = Page((tmp_path / "failed" / "report.html").read_text(encoding="utf-8")).words
    assert "Not measured: noise/all failed (out of memory)." in words


def test_the_records_of_a_csv_file_are_the_rows_of_its_part() -> None:
    given, of_part = typed(), csv_of(lambda results: results.geometry, {"pairs": lambda part: part.pairs})
    assert given.geometry is not None
    rows = of_part["pairs"](given)
    assert rows == [dump(pair) for pair in given.geometry.pairs]
    assert [list(row)[:2] for row in rows[:1]] == [["a", "b"]], "in the order of the fields"
    assert of_part["pairs"](Results(version=VERSION, trainings=[])) == []


def test_a_course_is_a_record_a_step() -> None:
    (first, *_), rows = typed().curves or (), csv_export.tables(typed())["curves"]
    of_first = [row for row in rows if row["name"] == first.name]
    assert [(row["step"], row["loss"]) for row in of_first] == list(zip(first.step, first.loss, strict=True))
    assert {row["name"] for row in rows} == {curve.name for curve in typed().curves or ()}


def test_directions_stand_beside_what_a_new_order_gives() -> None:
    """All pairs of runs of a method at one rate and of SFT; the verdict is that of the sentences."""
    given = typed()
    table = directions_table(given, model_index(given))
    assert table is not None and given.geometry is not None
    lines = {line.cells[0].text: [cell.text for cell in line.cells] for line in table.lines}
    repeats = [row.name for row in given.trainings if row.of == "sft" and row.role == "order"]
    own = sorted(given.geometry.cosine(a, b) or 0 for a, b in combinations(["sft", *repeats], 2))
    for method, label in (("rft", "RFT"), ("dpo-lr1e-3", "DPO lr1e-3")):
        crossed = sorted(given.geometry.cosine(method, name) or 0 for name in ("sft", *repeats))
        assert lines[label][2].split(" to ") == list(dict.fromkeys(f"{crossed[i]:.3f}" for i in (0, -1)))
        assert lines[label][-2].split(" to ") == list(dict.fromkeys(f"{own[i]:.3f}" for i in (0, -1)))
        assert lines[label][-1] == ("not told apart" if crossed[-1] >= min(own) else "differs")
    assert {line[-1] for line in lines.values()} >= {"differs", "not told apart"}
