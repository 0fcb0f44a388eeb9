"""The report of a study of many trainings: every table and figure, of bounded size, from the pairs that it lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.figures import MOST_MODELS
from report.findings import findings
from report.findings.direction import LEAD, ORDERS
from report.model_index import model_index
from report.page import MOST_LINES
from report.render import canonical, render
from report.section import Source
from results import Results, dump
from results.study import KeptPairs
from tests.report.large_study import large
from tests.report.test_render import Page

TIMES: dict = {"versions": {}, "steps": []}


@pytest.fixture(scope="module")
def many() -> Results:
    return large(14)


@pytest.fixture(scope="module")
def page(many: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    render(many, TIMES, folder)
    return folder


def test_it_has_every_table_and_figure_of_a_small_one(page: Path, tmp_path: Path) -> None:
    render(large(2, everything=True), TIMES, tmp_path)
    one, many = (Page((folder / "report.html").read_text()) for folder in (tmp_path, page))
    assert many.tables.keys() == one.tables.keys()
    for folder in ("figures", "csv"):
        assert {p.name for p in (page / folder).iterdir()} == {p.name for p in (tmp_path / folder).iterdir()}


def test_tables_and_figures_hold_what_there_is_room_for(many: Results, page: Path) -> None:
    text = (page / "report.html").read_text()
    assert all(len(rows) <= MOST_LINES + 2 for rows in Page(text).tables.values())  # and its headings
    assert f"Of 113 models the first {MOST_MODELS} are drawn" in text
    assert len((page / "csv" / "adapters.csv").read_text().splitlines()) == 1 + 112, "a CSV file has every row"
    assert text.count("pairs by layer and module are listed") == 1
    index = model_index(many)
    few = index.few(MOST_MODELS)
    assert len(few.models) == MOST_MODELS and list(few.models) == [name for name in index.models if name in few.models]
    own = {"base", "sft", "rft", "dft", "dpo", *(f"sft-order{order}" for order in range(43, 56))}
    assert own <= few.models.keys(), "the methods, and the reference's floors"
    assert index.few(113) is index


def test_what_is_said_of_directions_is_as_with_every_pair_listed(many: Results) -> None:
    every = large(14, everything=True)
    said = []
    for results in (many, every):
        index = model_index(results)
        found = findings(results, index, Source(results, TIMES, index).headline)
        said.append({claim.words for claim in found.claims if claim.point in (LEAD, ORDERS)})
    assert said[0] and said[0] == said[1]
    geometry, whole = many.geometry, every.geometry
    assert geometry is not None and whole is not None and len(geometry.pairs) < len(whole.pairs) / 20
    for pair in whole.pairs:
        assert geometry.cosine(pair.a, pair.b) == pytest.approx(pair.cosine, abs=1e-12)
    assert many.matched is not None and every.matched is not None
    for row, other in zip(many.matched, every.matched, strict=True):
        assert row.cosine is not None and other.cosine is not None and row.cosine.pairs == other.cosine.pairs
        assert row.cosine.mean == pytest.approx(other.cosine.mean, abs=1e-12)


def test_bytes_grow_with_the_trainings_but_for_the_gram(page: Path, tmp_path: Path) -> None:
    twice = large(28)
    render(twice, TIMES, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 1.3 * (page / "report.html").stat().st_size
    sizes = []
    for folder in (page, tmp_path):
        gram = 26 * {page: 112, tmp_path: 224}[folder] ** 2
        sizes.append((folder / "results.json").stat().st_size - gram)
    assert sizes[1] < 2.3 * sizes[0]


def test_a_study_says_which_pairs_it_lists_only_where_it_leaves_some_out() -> None:
    assert large(2, everything=True).kept_pairs is None
    kept = large(3).kept_pairs
    assert isinstance(kept, KeptPairs) and kept.beside == "sft"
    assert '"kept_pairs"' in canonical(dump(large(3)), "results")
