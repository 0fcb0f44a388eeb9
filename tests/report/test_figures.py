"""The drawings: which are made, what they hold, and that floors and names stand in them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from report import figures
from report.figures import FIGURES, Canvas, draw
from report.model_index import model_index
from report.plotting import FLOOR, numbers, short
from results import VERSION, Results
from tests.report.example_study import begun_at_b, results, typed
from tests.report.hollow import hollow

LEAST = Results(version=VERSION, trainings=[])
# The figures that are not drawn where the values of a part are undefined.
LEFT_OUT: dict[str, set[str]] = {
    "curves": {"curves", "growth"},
    "evaluation": {"accuracy"},
    "geometry": {"angles", "cosines", "functions", "layers", "one-factor", "parting", "step-size"},
    "activations": {"functions"},
    "spectra": {"spectra"},
    "directions": set(),
    "similarity": {"cka", "projections"},
    "sweep": set(),
    "matched": set(),
    "connectivity": set(),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, figures.Drawn], Path]:
    folder = tmp_path_factory.mktemp("figures")
    return draw(typed(), model_index(typed()), folder), folder


def _make(key: str, given: dict):
    made = _drawn(key, Results.model_validate(given))
    assert made is not None
    return made[0]


def _drawn(key: str, given: Results):
    return FIGURES[key](given, model_index(given), Canvas())


def test_every_figure_is_drawn_as_png_and_svg_at_paper_width(drawn: tuple) -> None:
    made, folder = drawn
    assert list(made) == list(FIGURES)
    for key in FIGURES:
        with Image.open(folder / f"{key}.png") as image:
            assert image.width <= round(6.8 * 200)
            assert image.width >= 3.3 * 200
            assert "Software" not in image.info
        root = ElementTree.parse(folder / f"{key}.svg").getroot()
        assert root.tag.endswith("svg")
        assert b"dc:date" not in (folder / f"{key}.svg").read_bytes()


def test_every_caption_says_what_cannot_be_told_or_what_is_shown(drawn: tuple) -> None:
    for figure in drawn[0].values():
        assert len(figure.caption) > 100
        assert figure.caption.endswith(".")


def test_inline_drawings_parse_and_share_no_id(drawn: tuple) -> None:
    ids: list[str] = []
    for key, figure in drawn[0].items():
        root = ElementTree.fromstring(figure.svg)
        assert root.get("aria-labelledby") == f"caption-{key}"
        found = [element.get("id") for element in root.iter() if element.get("id")]
        ids += [name for name in found if name]
        links = {
            value[1:]
            for element in root.iter()
            for name, value in element.attrib.items()
            if name.endswith("href") and value.startswith("#")
        }
        assert links <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_users_own_matplotlib_settings_change_nothing(
    drawn: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("report.figures.FIGURES", {"layers": FIGURES["layers"]})
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "yellow", "savefig.dpi": 50}):
        draw(typed(), model_index(typed()), tmp_path)
        assert matplotlib.rcParams["font.size"] == 20
    assert (tmp_path / "layers.png").read_bytes() == (drawn[1] / "layers.png").read_bytes()
    assert (tmp_path / "layers.svg").read_bytes() == (drawn[1] / "layers.svg").read_bytes()


def test_floors_are_drawn_where_they_were_measured() -> None:
    given = results()
    axes = _make("step-size", given).axes[0]
    heights = {round(float(line.get_ydata()[0]), 6) for line in axes.lines if line.get_xdata()[0] == 0}
    assert heights == {0.893, 0.012, 0.0011, 0.0004}
    geometry = given["geometry"]
    geometry["floors"] = {"itself": geometry["itself"]}
    for of in ("ambient", "shared_a"):
        geometry["chance"][of] = dict.fromkeys(geometry["chance"][of])
    axes = _make("step-size", given).axes[0]
    assert not [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]


def _named(axes, label: str):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def test_methods_part_from_the_reference_beside_its_floors() -> None:
    given = results()
    towards, onward = _make("parting", given).axes[:2]
    end = {row["b"]: row["cosine"] for row in given["geometry"]["pairs"] if row["a"] == "sft"}
    for label, name in (("DPO", "dpo"), ("DFT", "dft"), ("SFT order43", "sft-order43"), ("SFT init43", "sft-init43")):
        line = _named(towards, label)
        np.testing.assert_array_equal(line.get_xdata(), [20, 40, 60, 80, 100])
        assert line.get_ydata()[-1] == pytest.approx(end[name]), "it ends at the pair's cosine"
        assert (line.get_color() == FLOOR) == name.startswith("sft-"), "the floors are grey"
        assert _named(onward, label).get_ydata()[-1] == 1.0
    assert "SFT" not in [line.get_label() for line in towards.lines], "the reference is not compared with itself"
    assert list(_named(towards, "chance, same initial A").get_ydata()) == [0.0011] * 2
    for found in given["geometry"]["along"].values():
        found[:] = [row for row in found if row["step"] == 100]
    assert _drawn("parting", Results.model_validate(given)) is None, "one step is no course"


def test_what_is_alike_in_effect_stands_above_the_diagonal() -> None:
    given = results()
    axes = _make("functions", given).axes[0]
    plain = {row["b"]: row["cosine"] for row in given["geometry"]["pairs"] if row["a"] == "sft"}
    weighted = {row["b"]: row["cosine"] for row in given["activations"]["pairs"] if row["a"] == "sft"}
    for label, name in (("DPO", "dpo"), ("RFT", "rft"), ("SFT init43", "sft-init43")):
        point = _named(axes, label)
        assert (*point.get_xdata(), *point.get_ydata()) == (plain[name], weighted[name])
    assert _named(axes, "SFT init43").get_color() == FLOOR
    equal = _named(axes, "equal")
    np.testing.assert_array_equal(equal.get_xdata(), equal.get_ydata())
    assert list(_named(axes, "chance, same initial A").get_ydata()) == [0.071] * 2
    given["activations"]["chance"] = None
    assert not [line for line in _make("functions", given).axes[0].lines if "chance" in str(line.get_label())]


def test_chance_stands_in_every_panel_of_the_spectra() -> None:
    given = results()
    figure = _make("spectra", given)
    assert [axes.get_title() for axes in figure.axes] == ["output side", "input side", "both sides"]
    for axes, key in zip(figure.axes, ("left", "right", "both"), strict=True):
        assert list(_named(axes, "chance").get_xdata()) == [given["spectra"]["chance"][key]] * 2
        points = [line.get_xdata()[0] for line in axes.lines if line.get_label() != "chance"]
        assert points == [row[key] for row in given["spectra"]["adapters"]]
        assert axes.get_xlim()[0] < min(points) and max(points) < axes.get_xlim()[1]
    labels = [model_index(typed()).label(row["name"]) for row in given["spectra"]["adapters"]]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == labels
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == ["chance"]
    given["spectra"]["chance"] = dict.fromkeys(given["spectra"]["chance"])  # where all weights are zero
    assert not _make("spectra", given).legends


@pytest.mark.parametrize("key", ["parting", "functions", "spectra"])
def test_a_name_from_data_is_drawn_as_it_stands(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "<b>&$x^2$"
    given = json.loads(json.dumps(results()).replace('"rft"', json.dumps(name)))
    monkeypatch.setattr("report.figures.FIGURES", {key: FIGURES[key]})
    read = Results.model_validate(given)
    figure = draw(read, model_index(read), tmp_path)[key]
    assert ElementTree.fromstring(figure.svg).tag.endswith("svg")
    words = _make(key, given).findobj(matplotlib.text.Text)
    assert name in [word.get_text() for word in words]


def test_a_path_runs_from_its_first_model_to_its_second() -> None:
    """Stored weights are the share of the first model: at weight 1 the loss is the first one's."""
    given = results()
    given["connectivity"]["paths"] = [
        {"a": "sft", "b": "dpo", "weights": [0.0, 0.5, 1.0], "loss": [4.0, 3.5, 2.0], "barrier": 0.5}
    ]
    axes = _make("paths", given).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [2.0, 3.5, 4.0])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [2.0, 4.0])
    assert axes.get_title() == "SFT →\nDPO"


def test_the_sweeps_null_is_in_proportion_to_the_rate_and_a_failure_is_marked() -> None:
    norm = _make("sweep", results()).axes[0]
    null = next(line for line in norm.lines if line.get_label() == "norm in proportion to rate")
    np.testing.assert_allclose(null.get_ydata(), 0.41 * np.array([1, 3, 10, 30]))
    assert [text.get_text() for text in norm.texts] == ["failed"]


def test_every_comparison_stands_with_its_cosine_norm_and_accuracies() -> None:
    rows = typed().matched
    assert rows is not None and [row.matched for row in rows].count("as published") == 1
    figure = _make("matched", results())
    cosine, norm, *accuracies = figure.axes
    drawn = sorted(rows, key=lambda row: (row.matched != "as published", row.learning_rate))
    assert [text.get_text() for text in cosine.get_yticklabels()] == ["own rates", "rate 1e-3"]
    for axes, values in (
        (cosine, [row.cosine.mean for row in drawn if row.cosine]),
        (norm, [row.norm_ratio.mean for row in drawn if row.norm_ratio]),
        *((axes, [100 * row.accuracy[i].difference for row in drawn]) for i, axes in enumerate(accuracies)),
    ):
        points = sorted((line.get_ydata()[0], line.get_xdata()[0]) for line in _points(axes))
        assert [x for _, x in points] == pytest.approx(values)
    assert len(accuracies) == 2
    told = [row.accuracy[1].p_holm for row in drawn]
    filled = [line.get_markerfacecolor() != "white" for line in sorted(_points(accuracies[1]), key=_height)]
    assert filled == [p is not None and p < 0.05 for p in told] and {True, False} == set(filled)


def _points(axes):
    return [line for line in axes.lines if line.get_linestyle() == "None" and line.get_marker() != "|"]


def _height(line) -> float:
    return line.get_ydata()[0]


def test_of_many_comparisons_those_at_the_references_rate_are_drawn() -> None:
    given = typed()
    assert given.matched is not None
    others = [row.model_copy(update={"learning_rate": 2e-3 + 1e-5 * i}) for i, row in enumerate(given.matched * 15)]
    made = _drawn("matched", given.model_copy(update={"matched": [*others, *given.matched]}))
    assert made is not None and made[2].endswith(f"Of {len(others) + 6} rows 60 are drawn.")
    labels = [text.get_text() for text in made[0].axes[0].get_yticklabels()]
    assert {"own rates", "rate 1e-3"} <= set(labels)
    assert made[0].get_figheight() < 25


def test_accuracy_draws_the_wilson_interval_of_every_model() -> None:
    given = results()
    axes = _make("accuracy", given).axes[0]
    low, high = 100 * given["evaluation"]["tasks"][0]["models"][1]["low"], 0.0
    high = 100 * given["evaluation"]["tasks"][0]["models"][1]["high"]
    bars = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert [pytest.approx(low), pytest.approx(high)] in bars


def test_the_matrix_is_symmetric_with_ones_on_its_diagonal() -> None:
    image = _make("cosines", results()).axes[0].images[0].get_array()
    np.testing.assert_allclose(image, image.T)
    np.testing.assert_allclose(np.diag(image), 1.0)


def test_a_shuffled_control_stands_in_every_cka_panel() -> None:
    figure = _make("cka", results())
    labels = [[line.get_label() for line in axes.lines] for axes in figure.axes]
    assert [found.count("shuffled control") for found in labels] == [1, 1]


@pytest.mark.parametrize("key", list(FIGURES))
def test_nothing_measured_draws_nothing(key: str) -> None:
    assert _drawn(key, LEAST) is None


@pytest.mark.parametrize("part", LEFT_OUT)
def test_a_part_whose_values_are_undefined_is_left_out(part: str) -> None:
    """Null is what may be null, absent what may be absent; a course has neither, so the curves are absent."""
    given = results()
    given[part] = hollow(getattr(typed(), part))
    if part == "curves":
        del given[part]
    elif part == "connectivity":
        for path in given[part]["paths"]:
            path["loss"] = [None] * len(path["loss"])
        assert _drawn("paths", Results.model_validate(given | {part: given[part] | {"paths": []}})) is None
    elif part == "evaluation":
        _drawable(given | {part: {"tasks": hollow(typed().tasks)}})
    assert set(FIGURES) - _drawable(given) == LEFT_OUT[part]


def _drawable(given: dict) -> set[str]:
    """The figures that are drawn, each of them to its end."""
    read = Results.model_validate(given)
    made = {key: found[0] for key in FIGURES if (found := _drawn(key, read))}
    for figure in made.values():
        figure.draw_without_rendering()
    return set(made)


def test_colours_and_markers_tell_the_six_methods_apart() -> None:
    models = [model for model in model_index(typed()).models.values() if model.role == "method"]
    assert len({model.colour for model in models}) == len({model.marker for model in models}) == 6


def test_a_method_of_ones_own_wears_a_colour_that_no_other_wears() -> None:
    given = results()
    given["trainings"] = [row for row in given["trainings"] if row["method"] != "rift"]
    given["trainings"].append(given["trainings"][0] | {"name": "mine", "method": "mine", "objective": "mine"})
    for part in ("headline", "curves", "losses"):
        given[part] = [row for row in given[part] if row["name"] != "rift"]
    kept = ("version", "trainings", "headline", "curves", "losses")
    found = model_index(Results.model_validate({key: given[key] for key in kept}))
    colours = [model.colour for model in found.models.values() if model.role == "method"]
    assert len(set(colours)) == len(colours) == 6


def test_a_gap_stays_a_gap_and_a_long_name_is_shortened_in_the_middle() -> None:
    np.testing.assert_array_equal(numbers([1.0, None, 2]), [1.0, np.nan, 2.0])
    assert short("a" * 30 + "end", 11) == "aaaaa…aaend"
    assert short("two\nlines") == "two lines"


def test_figures_name_the_factor_that_was_drawn() -> None:
    for given, letter, other in ((results(), "A", "B"), (begun_at_b(results()), "B", "A")):
        told = Results.model_validate(given)
        words = ""
        for key in ("cosines", "angles", "parting", "functions", "growth", "sweep"):
            figure, title, caption = _drawn(key, told)
            texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
            words += " ".join([title, caption, *texts])
        assert f"another initial {letter}" in words and f"chance, same initial {letter}" in words
        assert f"‖{letter} − {letter}₀‖" in words and f"Norm of {other} (from zero)" in words
        assert f"initial {other}" not in words and f"{other}₀" not in words
