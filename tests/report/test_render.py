"""The report of a synthetic study: what it says, what it survives, and that its input decides every byte."""

from __future__ import annotations

import copy
import csv
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report import formats, tables
from report.figures import FIGURES
from report.model_index import label, model_index
from report.render import canonical, render
from report.sections import accuracy
from report.sections.rollouts import rollouts_table
from report.tables import Table
from results import VERSION, Results, dump
from results.evaluation import Task
from results.rollouts import Rollouts
from tests.report.example_study import ERROR, begun_at_b, provenance, results, typed
from tests.report.hollow import hollow

HOSTILE = '<img src=x onerror="alert(1)">&$x^2$'
LEAST = {"version": VERSION, "trainings": []}
_VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Collects tags, ids, attributes and each table's cells; complains of tags that do not close.

    ``tables``: a table's rows by its key, each with its kind, which is its tint.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.values: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.tables: dict[str, list[tuple[str, list[str]]]] = {}
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)
        key = dict(attrs).get("id") or ""
        if key.startswith("table-"):
            self.tables[key.removeprefix("table-")] = []
        if tag == "tr":
            self.rows.append([])
            list(self.tables.values())[-1].append((dict(attrs).get("class") or "", self.rows[-1]))
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words += data
        if self.open and self.rows and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    render(typed(), provenance(), out)
    return out


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the figures, a plot and a heat map, where a test is not about figures: drawing is slow."""
    kept = {key: FIGURES[key] for key in ("accuracy", "cosines")}
    monkeypatch.setattr("report.figures.FIGURES", kept)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("report.figures.FIGURES", {})


def _render(tmp_path: Path, given: dict, timing: dict | None = None) -> Page:
    render(Results.model_validate(given), timing or {}, tmp_path)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def _row(page: Page, first: str) -> list[str]:
    return next(row for row in page.rows if row and row[0] == first)


def _lines(page: Page, table: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for _, row in page.tables[table]}


def _tints(page: Page, table: str) -> dict[str, str]:
    return {row[0]: kind for kind, row in page.tables[table]}


def test_what_is_known_of_a_study_from_elsewhere_stands_below_its_title(tmp_path: Path, no_figures: None) -> None:
    given = results()
    given["study"]["note"] = "Elsewhere <it> gave .5."
    render(Results.model_validate(given), {}, tmp_path)
    assert "Elsewhere &lt;it&gt; gave .5." in (tmp_path / "report.html").read_text().partition("<ul>")[0]


def test_page_is_one_file_without_script_or_anything_from_elsewhere(page: Page) -> None:
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    for name, value in page.values:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:image/png;base64,"))
    assert len(page.ids) == len(set(page.ids))


def test_every_local_link_has_its_target(page: Page) -> None:
    links = [value for name, value in page.values if name in ("href", "xlink:href")]
    targets = {value[1:] for value in links if value.startswith("#")}
    targets |= {value for name, value in page.values if name == "aria-labelledby"}
    assert targets <= set(page.ids)


def test_same_input_gives_the_same_bytes(tmp_path: Path, few_figures: None) -> None:
    found = []
    for name in ("first", "second"):
        render(typed(), provenance(), tmp_path / name)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        found.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert {path.suffix for path in found[0]} == {".html", ".json", ".csv", ".png", ".svg"}


def test_results_come_back_exactly_with_sorted_keys(report: Path) -> None:
    text = (report / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == results()
    assert text == canonical(json.loads(text), "results")
    assert list(json.loads(text)) == sorted(results())
    assert json.loads((report / "provenance.json").read_text(encoding="utf-8")) == provenance()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_with_its_place(tmp_path: Path, value: float) -> None:
    broken = results()
    broken["geometry"]["pairs"][3]["u1"] = value
    with pytest.raises(ValueError, match=r"geometry\.pairs\.3\.u1\n.* finite number"):
        Results.model_validate(broken)
    with pytest.raises(ValueError, match=r"results\.geometry\.pairs\[3\]\.u1 is not a finite number"):
        canonical(broken, "results")
    with pytest.raises(ValueError, match=r"provenance\.steps\[0\]\.seconds is not a finite number"):
        render(typed(), {"steps": [{"seconds": value}]}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_headline_holds_every_floor_and_the_base_beside_the_methods(page: Page) -> None:
    dpo = _row(page, "DPO")
    assert dpo[1:4] == ["own rate", "1e-4", "0.063"]
    assert dpo[8:11] == ["0.410", "0.144×", "0.100×"]
    assert _row(page, "DPO lr1e-3")[1:4] == ["SFT’s rate", "1e-3", "0.204"]
    assert _row(page, "SFT order43")[1:4:2] == ["floor: another order of rows", "0.893"]
    assert _row(page, "SFT init43")[1:4:2] == ["floor: another initial A", "0.012"]
    assert _row(page, "DPO lr3e-4")[1] == "floor: another learning rate"
    assert _row(page, "DPO lr3e-4")[3].endswith("to its own method")
    assert _row(page, "Chance, same initial A")[3] == "±0.0011"
    assert _row(page, "Chance, same initial A")[7] == "0.350"
    base = _row(page, "Base")
    assert base[1] == "no update"
    assert base[3] == base[4] == formats.MISSING
    assert base[11].startswith("61.6%")


def test_the_headline_weighs_by_activations_where_they_were_measured(page: Page) -> None:
    rows = _lines(page, "headline")
    assert rows["Model"][3].startswith("Weighted cosine")
    weighted = {name: row[3] for name, row in rows.items() if len(row) > 3}
    assert (weighted["SFT"], weighted["DPO"], weighted["DPO lr1e-3"]) == ("1.000", "0.344", "0.443")
    assert (weighted["SFT order43"], weighted["SFT init43"]) == ("0.925", "0.580")
    assert (weighted["Chance, same initial A"], weighted["Chance, random"]) == ("±0.071", formats.MISSING)
    tints = _tints(page, "headline")
    assert tints["SFT init43"] == "floor" and tints["Chance, same initial A"] == "chance"
    assert not any("other factors" in name or name == "itself" for name in rows), "its own row says it"


def test_a_floor_of_another_method_is_weighed_against_itself(page: Page) -> None:
    pairs = results()["activations"]["pairs"]
    (own,) = [row["cosine"] for row in pairs if (row["a"], row["b"]) == ("dpo", "dpo-lr3e-4")]
    found = _lines(page, "headline")["DPO lr3e-4"]
    assert found[3] == f"{formats.fixed(own)}to its own method"


def test_without_activations_the_headline_has_no_column_for_them(tmp_path: Path, no_figures: None) -> None:
    given = results()
    del given["activations"]
    page = _render(tmp_path, given)
    assert _lines(page, "headline")["Model"][3].startswith("Smallest angle")
    assert _row(page, "DPO")[7:10] == ["0.410", "0.144×", "0.100×"]
    assert "weighted" not in page.tables


def test_floors_and_chance_are_shaded_beside_what_they_are_floors_of(page: Page) -> None:
    for table in ("weighted", "spectra", "spans"):
        tints = _tints(page, table)
        assert tints["SFT order43"] == tints["SFT init43"] == "floor", table
        assert {tints[name] for name in ("RFT", "DFT", "RIFT", "Offline GRPO", "DPO", "DPO lr1e-3")} == {""}, table
    assert _tints(page, "weighted")["Chance, same initial A"] == _tints(page, "spectra")["Chance"] == "chance"
    assert not any(name.startswith("Chance") for name in _tints(page, "spans"))
    assert _tints(page, "pairs")["SFT · SFT (in other factors)"] == "floor"


def test_the_weighted_cosine_stands_beside_the_plain_one(page: Page) -> None:
    rows = _lines(page, "weighted")
    assert "SFT" not in rows and "DPO lr3e-3" not in rows
    assert rows["DPO"] == ["0.063", "0.344", "0.127"]
    assert rows["SFT init43"] == ["0.012", "0.580", "0.877"]
    assert rows["Chance, same initial A"] == ["±0.0011", "±0.071", formats.MISSING]
    assert "1\u202f054 completion tokens of 64 rollouts" in page.words


def test_updates_stand_beside_the_bases_weights(page: Page) -> None:
    rows = _lines(page, "spectra")
    assert rows["Model"][0] == "In bothtop 10, share of ‖ΔW‖²"
    assert rows["SFT"] == ["0.021", "0.17", "0.12", "0.060", "16"]
    assert rows["DFT"][4] == "16"
    assert rows["Chance"] == ["0.0081", "0.10", "0.078", formats.MISSING, formats.MISSING]
    assert "cosine to every one of W’s is below 0.5" in page.words


def test_multiples_and_mixtures_are_told_by_hand(page: Page) -> None:
    """Of cosine c and norms n, n0: the nearest multiple is c n / n0, and the square root of 1 - c^2 is left over."""
    rows = _lines(page, "spans")
    assert rows["SFT"][:2] == ["1.00", "0.000"]
    assert rows["DFT"][:2] == [formats.significant(0.572 * 2.31 / 2.84), formats.fixed((1 - 0.572**2) ** 0.5)]
    assert rows["SFT init43"][:2] == ["0.0120", ">0.999"], "0.99993 is not all"
    assert all(row[2].endswith("of 5") for name, row in rows.items() if name != "Model")
    assert float(rows["DFT"][2][:5]) <= float(rows["DFT"][1]), "a mixture misses no more than the nearest multiple"
    told = results()["directions"]["variance"]
    assert (told["methods"], told["repeated"]) == (6, 1), "three rates of DPO are no replicates"
    shown = (
        f"1 ran in several orders of rows: {formats.percent(told['between_share'])} of the spread of directions lies"
    )
    assert f"Of 6 methods at one initial A, each at its own learning rate, {shown} between methods" in page.words
    assert f"by chance it would be {formats.percent(5 / 6)}, p {formats.p_value(told['p'])}." in page.words


def test_accuracy_stands_beside_the_base_with_both_intervals(page: Page) -> None:
    task = results()["evaluation"]["tasks"][0]
    model = next(row for row in task["models"] if row["name"] == "dft")
    (tested,) = [row for row in task["pairs"] if (row["a"], row["b"]) == ("base", "dft")]
    rows = _lines(page, "accuracy-arithmetic")
    assert rows["Model"][:3] == ["Rightof 1\u202f000", "Accuracy95% interval", "To basepoints, 95% interval"]
    assert rows["DFT"][0] == str(model["correct"])
    assert rows["DFT"][1] == formats.percent(model["accuracy"]) + formats.interval(model["low"], model["high"])
    shown = [formats.fixed(100 * tested[key], 1) for key in ("difference", "low", "high")]
    assert rows["DFT"][2] == f"+{shown[0]}+{shown[1]} to +{shown[2]}"
    assert rows["DFT"][4:] == ["0.3%", "1.1%", "24.723 / 31"]
    assert "One greedy answer a problem, 1\u202f000 problems. Wilson intervals." in page.words
    assert "if all that differ went one way: 0.6 points in one comparison, 1.2 points at Holm" in page.words


def test_several_samples_bring_pass_at_k_and_maj_at_k(page: Page) -> None:
    task = results()["evaluation"]["tasks"][1]
    model = next(row for row in task["models"] if row["name"] == "dft")
    rows = _lines(page, "accuracy-arithmetic-long")
    assert rows["Model"][0] == "Rightof 400 × 4" and rows["Model"][2:5] == ["pass@2", "pass@4", "maj@4"]
    several = model["pass_at"]["2"], model["pass_at"]["4"], model["maj"]
    assert rows["DFT"][2:5] == [formats.percent(value) for value in several]
    assert rows["DFT"][7:9] == ["0.2%", "0.7%"], "3 and 11 of 1 600 answers"
    assert "4 samples a problem at temperature 0.7, 400 problems." in page.words
    assert "exact p of the sign-flip test over problems" in page.words and "exact McNemar p" in page.words
    (tested,) = [row for row in task["pairs"] if (row["a"], row["b"]) == ("sft", "dft")]
    below = _lines(page, "mcnemar-arithmetic-long")
    column = below[""].index("SFT")
    assert below["DFT"][column] == f"{tested['more_b']} : {tested['more_a']}"


def test_agreement_stands_above_and_the_difference_below(page: Page) -> None:
    task = results()["evaluation"]["tasks"][0]
    (tested,) = [row for row in task["pairs"] if (row["a"], row["b"]) == ("sft", "dft")]
    rows = _lines(page, "agreement-arithmetic")
    sft, dft = rows[""].index("SFT"), rows[""].index("DFT")
    assert rows["SFT"][dft] == formats.percent(tested["agreement"])
    shown = [formats.fixed(100 * tested[key], 1) for key in ("difference", "low", "high")]
    assert rows["DFT"][sft] == f"+{shown[0]}+{shown[1]} to +{shown[2]}", "DFT less SFT"
    assert rows["SFT"][sft] == ""


def test_a_pair_reads_the_same_whichever_way_round_it_stands() -> None:
    index, task = model_index(typed()), results()["evaluation"]["tasks"][0]
    turned = copy.deepcopy(task)
    for row in turned["pairs"]:
        row["a"], row["b"] = row["b"], row["a"]
        row["only_a"], row["only_b"] = row["only_b"], row["only_a"]
        row["difference"], row["low"], row["high"] = -row["difference"], -row["high"], -row["low"]
    for make in (accuracy.accuracy_table, accuracy.mcnemar_table, accuracy.agreement_table):
        assert make(Task.model_validate(task), index) == make(Task.model_validate(turned), index)


def test_problems_that_one_model_alone_solves_are_named(page: Page) -> None:
    task = results()["evaluation"]["tasks"][0]
    rows = _lines(page, "alone-arithmetic")
    for entry in task["alone"]:
        more = f" and {entry['count'] - 20} more" if entry["count"] > 20 else ""
        shown = ", ".join(entry["ids"]) + more if entry["count"] else formats.MISSING
        assert rows[label(entry["name"])] == [str(entry["count"]), shown]
    assert f"all models solve {task['solved_by_all']}, none solves {task['solved_by_none']}" in page.words


def test_the_canary_says_what_the_base_and_zeros_gave(page: Page) -> None:
    assert "Before each: the base agreed in 11 checks" in page.words and "an adapter of zeros agreed" in page.words


def test_how_far_an_update_left_its_start_stands_beside_its_size(page: Page) -> None:
    rows = _lines(page, "adapters")
    assert [rows["Model"][i][:12] for i in (2, 3, 4)] == ["Stable rankm", "A moved‖A−A₀", "In A₀’s rows"]
    assert rows["DPO"][2:5] == ["3.04", "0.00820", "0.988"]


def test_every_figure_stands_in_the_page_with_its_caption(page: Page) -> None:
    assert {f"{what}-{key}" for key in FIGURES for what in ("figure", "caption")} <= set(page.ids)
    for title in ("When do two methods part?", "Alike in entries, alike in effect?", "Where the base’s weights point"):
        assert title in page.words


def test_a_failed_training_is_a_row_with_its_error(page: Page) -> None:
    assert _row(page, "DPO lr3e-3") == ["DPO lr3e-3", f"failed: {ERROR}"]
    assert "Training failed: DPO lr3e-3." in page.words


def test_every_csv_is_tidy_and_holds_the_results_at_full_precision(report: Path) -> None:
    given = results()
    tables = {}
    for path in (report / "csv").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as handle:
            tables[path.stem] = list(csv.DictReader(handle))
        assert all(None not in row and None not in row.values() for row in tables[path.stem])
    pairs = given["geometry"]["pairs"]
    assert [float(row["cosine"]) for row in tables["pairs"]] == [row["cosine"] for row in pairs]
    assert len(tables["curves"]) == sum(len(row["step"]) for row in given["curves"])
    assert len(tables["mcnemar"]) == sum(len(task["pairs"]) for task in given["evaluation"]["tasks"])
    assert {row["floor"] for row in tables["floors"]} == {
        "ambient",
        "shared_a",
        "order",
        "init",
        "learning_rate",
        "itself",
    }
    for name, rows in (
        ("along_pairs", given["geometry"]["along"]["pairs"]),
        ("activation_pairs", given["activations"]["pairs"]),
        ("activation_layers", given["activations"]["layers"]),
        ("activation_projections", given["activations"]["projections"]),
    ):
        assert [float(row["cosine"]) for row in tables[name]] == [row["cosine"] for row in rows], name
    ends = [row["to_end"] for row in given["geometry"]["along"]["adapters"]]
    assert [float(row["to_end"]) for row in tables["along_adapters"]] == ends
    assert [row["name"] for row in tables["directions"]] == [row["name"] for row in given["directions"]["adapters"]]
    for name in ("adapter_projections", "adapter_modules"):
        assert len(tables[name]) == len(given["geometry"][name])
    for name, key in (("spectra", "adapters"), ("spectra_layers", "layers"), ("spectra_modules", "modules")):
        assert [float(row["both"]) for row in tables[name]] == [row["both"] for row in given["spectra"][key]], name
    assert "accuracy.arithmetic" in tables["headline"][0]
    failed = next(row for row in tables["trainings"] if row["status"] == "failed")
    assert failed["error"] == ERROR
    assert failed["loss_last"] == ""


def test_names_and_texts_from_data_are_escaped(tmp_path: Path, few_figures: None) -> None:
    given = results()
    text = json.dumps(given).replace('"rft"', json.dumps(HOSTILE)).replace('"dft"', json.dumps("x" * 80))
    given = json.loads(text)
    given["study"]["title"] = given["study"]["settings"]["note"] = HOSTILE
    given["rollouts"]["teachers"][0]["name"] = HOSTILE
    given["failures"][0]["error"] = "</style><script>alert(1)</script>"
    page = _render(tmp_path, given, {"versions": {HOSTILE: HOSTILE}})
    assert not {"script", "img"} & set(page.tags)
    assert page.open == []
    assert page.words.count(HOSTILE) > 5
    for table in ("headline", "weighted", "spectra", "spans", "adapters"):
        assert HOSTILE in _lines(page, table), table
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("missing", [name for name in results() if name not in LEAST])
def test_renders_without_any_one_part(tmp_path: Path, missing: str, no_figures: None) -> None:
    given = results()
    del given[missing]
    assert _render(tmp_path, given).open == []


@pytest.mark.parametrize("part", [name for name in results() if name not in ("version", "study", "failures")])
def test_renders_with_the_inside_of_a_part_gone(tmp_path: Path, part: str, no_figures: None) -> None:
    given = results()
    given[part] = hollow(getattr(typed(), part))
    page = _render(tmp_path, given)
    assert page.open == []
    assert "None" not in page.words
    assert "nan" not in re.findall(r"\w+", page.words)


@pytest.mark.parametrize("ended", ["failed", "not run"])
def test_a_study_without_a_finished_training_says_why(tmp_path: Path, ended: str) -> None:
    given = {
        key: part for key, part in results().items() if key in ("version", "study", "base", "rollouts", "failures")
    }
    rows = [row for row in results()["trainings"] if row["status"] == "failed"]
    given["trainings"] = [row | {"status": ended, "error": "the base failed"} for row in rows]
    page = _render(tmp_path, given)
    assert _row(page, "DPO lr3e-3")[1] == ("failed: the base failed" if ended == "failed" else "3e-3")
    assert ("No training finished." in page.words) == (ended == "failed")
    assert "Not measured, because train/dpo-lr3e-3 failed" in page.words, "the accuracy"


def test_renders_from_nothing_and_says_so(tmp_path: Path) -> None:
    page = _render(tmp_path, LEAST)
    assert "these results hold no update" in page.words
    assert page.words.count("Not in these results.") >= 8
    assert "Nothing: every step finished." in page.words
    assert list((tmp_path / "csv").iterdir()) == []


def test_renders_geometry_alone_with_names_of_its_own(tmp_path: Path, few_figures: None) -> None:
    """What a comparison of anyone's adapters has: no trainings, no evaluation, no reference called SFT."""
    geometry = json.loads(json.dumps(results()["geometry"]).replace('"sft"', '"mine"').replace('"dpo"', '"yours"'))
    geometry["floors"] = {"itself": geometry["itself"]}
    page = _render(tmp_path, LEAST | {"geometry": geometry})
    assert "Undecided: cosines to mine run from" in page.words
    assert "no run repeats a method with another order of rows" in page.words
    assert _row(page, "yours")[1] == "0.063", "no column for what is known of no adapter"
    assert (tmp_path / "figures" / "cosines.svg").is_file()
    assert not (tmp_path / "figures" / "accuracy.svg").exists()


def test_renders_a_comparison_with_what_is_to_be_said_of_it(tmp_path: Path, no_figures: None) -> None:
    """It never meant to train or to evaluate, so none of that is missing."""
    known = results()
    names = [row["name"] for row in known["geometry"]["adapters"]]
    adapters = [{"name": name, "base": "some/base", "modules": 16, "rslora": False} for name in names]
    comparison = {"adapters": adapters, "shared_modules": 12, "notes": [f"{HOSTILE}: 4 modules are left out."]}
    kept = {key: known[key] for key in ("geometry", "activations", "spectra", "directions")}
    listed = [{"name": name, "compared_to": "sft", "matched": None} for name in names]
    page = _render(tmp_path, LEAST | {"comparison": comparison, "headline": listed, **kept})
    assert "Comparison of adapters" in page.words
    assert "10 adapters of some/base" in page.words and "12 modules in all of them" in page.words
    assert f"{HOSTILE}: 4 modules are left out." in page.words
    assert "Not in these results." not in page.words and "trainings" not in page.ids
    assert {"geometry", "activations", "spectra"} <= set(page.ids)
    assert not {"script", "img"} & set(page.tags)


def test_a_second_report_in_the_same_folder_leaves_nothing_stale(tmp_path: Path, few_figures: None) -> None:
    render(typed(), {}, tmp_path)
    render(Results.model_validate(LEAST), {}, tmp_path)
    assert [
        path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".csv", ".png", ".svg")
    ] == []


def test_a_missing_part_names_the_step_that_failed(tmp_path: Path) -> None:
    failed = {"step": "geometry", "error": "no space left", "dependants": ["connectivity/sft-dpo"]}
    words = _render(tmp_path, LEAST | {"failures": [failed]}).words
    assert "Not measured: geometry failed (no space left)." in words
    assert "Not measured, because geometry failed (no space left)." in words


def test_a_planted_base_is_announced_and_a_real_one_is_not(tmp_path: Path) -> None:
    for kind, announced in (("from_scratch", True), ("hub", False)):
        words = _render(tmp_path, LEAST | {"base": {"kind": kind, "name": "a base"}}).words
        assert ("not evidence about language models" in words) == announced


def test_rendering_leaves_its_input_alone(tmp_path: Path, no_figures: None) -> None:
    given, timing = Results.model_validate(results()), provenance()
    render(given, timing, tmp_path)
    assert dump(given) == results() and timing == provenance()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.significant(2.8412), "2.84"),
        (formats.significant(100.4), "100"),
        (formats.significant(0.05714), "0.0571"),
        (formats.significant(0.000571), "5.71e-4"),
        (formats.significant(-1319.4), "−1\u202f319"),
        (formats.significant(None), "–"),
        (formats.fixed(-0.0004), "0.000"),
        (formats.fixed(-0.25), "−0.250"),
        (formats.rate(5e-6), "5e-6"),
        (formats.rate(3.5e-4), "3.5e-4"),
        (formats.rate(0.05), "0.05"),
        (formats.p_value(0.0123), "0.012"),
        (formats.p_value(0.434), "0.43"),
        (formats.p_value(3.14e-5), "3.1e-5"),
        (formats.p_value(1e-12), "<1e-9"),
        (formats.p_value(1.0), "1"),
        (formats.percent(0.8734), "87.3%"),
        (formats.interval(0.854, 0.89), "85.4–89.0"),
        (formats.degrees(54.63), "54.6°"),
        (formats.degrees(0.014), "0.01°"),
        (formats.degrees(7e-5), "<0.01°"),
        (formats.degrees(0), "0°"),
        (formats.degrees(0.997), "1.0°"),
        (formats.degrees(89.97), ">89.9°"),
        (formats.degrees(90.0), "90.0°"),
        (formats.cosine(0.99996), ">0.999"),
        (formats.cosine(-0.99996), "<−0.999"),
        (formats.cosine(0.996, 2), ">0.99"),
        (formats.cosine(1 - 1e-13), "1.000"),
        (formats.cosine(-1.0), "−1.000"),
        (formats.cosine(None), "–"),
        (formats.percent(0.9999), ">99.9%"),
        (formats.percent(0.0001), "<0.1%"),
        (formats.percent(0.004, 0), "<1%"),
        (formats.percent(0.996, 0), ">99%"),
        (formats.percent(1.0), "100.0%"),
        (formats.percent(0.0), "0.0%"),
        (formats.p_value(0.9996), ">0.99"),
        (formats.p_value(0.0497), "0.0497"),
        (formats.p_value(0.0502), "0.0502"),
        (formats.p_value(0.05), "0.050"),
        (formats.p_value(0.0499999), "<0.05"),
        (formats.span([4, None, 10]), "4 to 10"),
        (formats.span([16, 16]), "16"),
        (formats.span([]), ""),
        (formats.seconds(287.4), "4 min 47 s"),
        (formats.seconds(9000), "2 h 30 min"),
        (formats.count(75_000), "75\u202f000"),
        (formats.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_are_written_for_a_reader(shown: str, expected: str) -> None:
    assert shown == expected


def test_variants_of_an_objective_are_named_by_it_and_wear_its_colour() -> None:
    trained = [("rift", "rift"), ("rift_source", "rift"), ("offline_grpo_source", "offline_grpo"), ("mine", "dpo")]
    of = results()["trainings"][0]
    rows = [of | {"name": name, "method": name, "objective": objective} for name, objective in trained]
    index = model_index(Results.model_validate(LEAST | {"trainings": rows}))
    assert [model.label for model in index.models.values()] == ["RIFT", "RIFT source", "Offline GRPO source", "mine"]
    rift, source, _, mine = index.models.values()
    assert rift.colour == source.colour != mine.colour
    assert (rift.marker, rift.filled) != (source.marker, source.filled)
    assert label("rift_source-order43") == "RIFT source order43" and label("sft-lr3e-4") == "SFT lr3e-4"
    assert label("sftx") == "sftx" and label("base") == "Base"


def test_the_rollouts_say_what_a_teacher_took_and_how_many_were_right() -> None:
    def lines(given: dict) -> dict[str, str]:
        table = rollouts_table(Rollouts.model_validate(given))
        assert isinstance(table, Table)
        return {line.cells[0].text: line.cells[1].text.replace("\u202f", " ") for line in table.lines}

    given = results()["rollouts"]
    told = {"answers": 2000, "refused": 3, "prompt_tokens": 81_000, "completion_tokens": 512_000, "cost": 1.2345}
    told["with_reasoning"] = 0
    given["api"] = told
    mended = {"end of turn was there already": 4}
    tokens = given["tokens"] | {"parted": 3, "first": "p7: behind 'a' ...", "mended": mended}
    given |= {"joined": 2, "tokens": tokens}
    shown = lines(given)
    assert shown["Asked of the teacher"] == "2 000 answers, 3 refused, 81 000 + 512 000 tokens, $1.23"
    assert shown["Problems by right rows, from none"] == "44 · 118 · 141 · 115 · 82"
    assert shown["Length of wrong rows"] == "17 / 22 / 32"
    assert shown["Rows joined to a problem that is the same but for case and space"] == "2"
    assert shown["Mended in their tokens"] == "4 end of turn was there already"
    assert shown["Tokens other than the chat template’s"] == "3 of 2 000 rows; p7: behind 'a' ..."
    del told["cost"]  # of a study without prices
    tokens |= {"parted": 0, "first": None, "mended": {}}
    given["right_counts"] = [1] * 40
    shown = lines(given)
    assert shown["Asked of the teacher"].endswith("tokens") and "Problems by right rows, from none" not in shown
    assert not [name for name in shown if "okens" in name and not name.startswith("Length")]


def test_a_partial_report_says_first_what_is_missing(tmp_path: Path, no_figures: None) -> None:
    given = results()
    del given["similarity"], given["failures"]
    given["unfinished"] = {
        "steps": 23, "done": 17, "failed": ["train/dpo-lr3e-3"], "early": ["geometry/weights"],
        "waiting": ["evaluate/dpo", "evaluate/rft", "geometry/weights", "similarity/cka", "train/dpo"],
    }  # fmt: skip
    page = _render(tmp_path, given, {"started": None, "steps": [{"step": "train/sft", "seconds": 3.0, "cached": None}]})
    words = page.words[page.words.index("Six objectives") :].split("\n", 1)[1].strip()
    assert words.startswith(
        "This report is partial: 17 of 23 steps are done. Failed (1): train: dpo-lr3e-3. Not done (5): evaluate: dpo, "
        "rft; geometry: weights; similarity: cka; train: dpo. Measured for this report alone, of the trainings that "
        "are done: geometry: weights."
    )
    assert "every step finished" not in page.words and "· run 2" not in page.words
    assert "Not measured: similarity: cka not done." in page.words
    assert _row(page, "train/sft")[1:] == ["3.0 s"], "what came from the store is not known"


def test_a_whole_report_is_not_called_partial(page: Page) -> None:
    assert "partial" not in page.words


def test_a_reference_of_zero_is_said_and_nothing_is_made_of_it(tmp_path: Path, no_figures: None) -> None:
    given = results()
    for row in (*given["geometry"]["adapters"], *given["headline"]):
        row["norm"] = 0.0 if row["name"] == "sft" else row["norm"]
    for row in (*given["geometry"]["pairs"], *given["headline"]):
        if "sft" in (row.get("a"), row.get("b"), row.get("compared_to")):
            row.update(dict.fromkeys(("cosine", "angle_min_median_deg", "u1", "v1")))
    page = _render(tmp_path, given)
    assert "SFT’s update is zero, so nothing can be compared with it." in page.words
    assert "are missing" not in page.words.split("Every method against")[0]
    notes = [value for name, value in page.values if name == "title"]
    assert "the reference’s update is zero: nothing can be compared with it" in notes


def test_an_update_of_rounding_has_no_direction_in_the_headline(tmp_path: Path, no_figures: None) -> None:
    given = results()
    next(row for row in given["trainings"] if row["name"] == "dpo")["noise"] = True
    page = _render(tmp_path, given)
    dpo = _row(page, "DPO")
    assert dpo[3:8] == [formats.MISSING] * 5 and "noise" in dpo[8]
    notes = [value for name, value in page.values if name == "title"]
    assert "undefined: made of rounding, and without a direction, is the update of DPO" in notes
    assert _row(page, "DPO lr1e-3")[3] == "0.204"


def test_it_is_the_learning_rate_that_a_method_is_said_to_share_with_the_reference(
    tmp_path: Path, no_figures: None
) -> None:
    """RFT at the same rate took fewer steps; DPO at a tenth of it took ten times as many."""
    given = results()
    steps = {"sft": 100, "rft": 50, "dpo": 1000}
    for row in given["trainings"]:
        if row["name"] in steps:
            row["report_step"] = steps[row["name"]]
    page = _render(tmp_path, given)
    assert (_row(page, "RFT")[1], _row(page, "RFT")[10]) == ("SFT’s rate", "0.500×")
    assert (_row(page, "DPO")[1], _row(page, "DPO")[10]) == ("own rate", "1.00×")


def test_what_is_known_of_no_adapter_has_no_column(tmp_path: Path, no_figures: None) -> None:
    geometry = json.loads(json.dumps(results()["geometry"]).replace('"sft"', '"mine"'))
    for row in geometry["adapters"]:
        row["a_moved_rel"] = row["start_share"] = None
    page = _render(tmp_path, LEAST | {"geometry": geometry | {"floors": {"itself": geometry["itself"]}}})
    assert [title[:12] for title in _lines(page, "headline")["Model"]][:2] == ["Cosineto min", "Smallest ang"]
    shown = [title[:12] for title in _lines(page, "adapters")["Model"]]
    assert shown == ["Norm‖ΔW‖, gl", "Effective ra", "Stable rankm", "Modules"]
    assert "Rate × steps" not in page.words.split("Definitions")[0]


def test_the_page_names_the_factor_that_was_drawn(tmp_path: Path, no_figures: None) -> None:
    page = _render(tmp_path / "b", begun_at_b(results()))
    assert "initial A" not in page.words and "A₀" not in page.words
    assert "The output side is shared through the initial B, so a high |u₁·u₁′| must be read" in page.words
    assert "with the same initial B, within its column space" in page.words
    assert _row(page, "SFT init43")[1] == "floor: another initial B"
    assert _row(page, "Chance, same initial B")[3] == "±0.0011"
    titles = _lines(page, "adapters")["Model"]
    assert "B moved‖B−B₀‖ / ‖B₀‖" in titles and "In B₀’s columnsshare of ‖ΔW‖²" in titles
    assert "‖A‖from zero" in _lines(page, "trainings-did")["Training"]
    mixed = results()
    next(row for row in mixed["trainings"] if row["name"] == "dpo")["start"] = "b"
    words = _render(tmp_path / "both", mixed).words
    assert "another initial A" in words and "Chance, same initial A" in words, "the reference’s"
    assert "another initial A or B" not in words and "A or B moved" in words


def test_a_failed_models_row_still_spans_the_table_without_its_empty_columns(page: Page, tmp_path: Path) -> None:
    columns = [(tables.Column(c), lambda row, c=c: tables.number(str(row.get(c, "–")))) for c in "xaby"]
    table = tables.records("t", "T", [{"a": 1}], columns, "")
    assert table is not None
    assert [column.title for column in table.columns] == ["x", "a"]
    whole = tables.Table("t", "T", tuple(tables.Column(c) for c in "abc"), (tables.failed("m", "why", 3),), "")
    assert tables.filled(whole) == whole, "of failures alone nothing is known to be empty"


def test_two_kls_of_one_model_say_which_rows_they_are_of(tmp_path: Path, no_figures: None) -> None:
    given = results()
    given["study"]["settings"] |= {"training.probe_rows": 64, "analysis.connectivity.rows": 48}
    words = _render(tmp_path, given).words
    assert "a token of the first 64 held-out rollouts, right and wrong as they come" in words
    assert "on all of them (the first 48 of each kind, or as many as there are)" in words
    assert "823 k parameters with embeddings" in words


def test_no_name_reaches_the_page_or_its_drawings_raw(tmp_path: Path, few_figures: None) -> None:
    nasty = "m\x1b[2J\x00\u202egnp\u200f\x9b"
    given = json.loads(json.dumps(results()).replace('"rft"', json.dumps(nasty)))
    given["study"]["settings"][f"methods.{nasty}"] = nasty
    given["rollouts"]["teachers"] = [{"name": nasty, "rows": 3, "share_right": 0.5}]
    given["evaluation"]["tasks"][0]["title"] = nasty
    given["evaluation"]["tasks"][0]["alone"][0]["ids"] = [nasty]
    given["failures"] = [{"step": f"train/{nasty}", "error": nasty, "dependants": [nasty]}]
    render(Results.model_validate(given), provenance(), tmp_path)
    pages = [tmp_path / "report.html", *(tmp_path / "csv").iterdir(), *(tmp_path / "figures").glob("*.svg")]
    for path in pages:
        raw = {c for c in path.read_text(encoding="utf-8") if unicodedata.category(c) in ("Cc", "Cf", "Cs")}
        assert raw <= set("\n\t\r"), path.name
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count(
        "m\u241b[2J\u2400[U+202E]gnp[U+200F][U+009B]"
    ) > 9
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == given, "data stays as it is"
