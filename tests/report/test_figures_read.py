"""Whether a drawing can be read: nothing hidden, cut off, boxed, or on a range that shows nothing of it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from report.figures import _STYLE, FIGURES, draw
from report.model_index import ModelIndex, model_index
from report.plotting import Canvas, bring_out, called, covered, drawable
from results import VERSION, Results
from tests.report.example_study import results, typed
from tests.report.hollow import hollow


def index_of(given: dict) -> ModelIndex:
    return model_index(Results.model_validate(given))


def make(key: str, given: dict):
    with matplotlib.rc_context(_STYLE):
        read = Results.model_validate(given)
        made = FIGURES[key](read, model_index(read), Canvas())
    assert made is not None
    return made


def strangers(count: int, cosine: float = 0.3) -> dict:
    """Foreign adapters alone, as compare has them; all at one norm and one cosine to the first."""
    least = hollow(typed().geometry)
    adapter, pair, layer = least["adapters"][0], least["pairs"][0], least["layers"][0]
    names = [f"a-long-name-of-a-stranger-{i}" for i in range(count)]
    told = {"cosine": cosine, "angle_min_median_deg": 40.0, "angle_max_median_deg": 80.0, "k": 4, "k_max": 4}
    both = [{"a": a, "b": b, **told} for i, a in enumerate(names) for b in names[i + 1 :]]
    geometry = {key: [] if isinstance(part, list) else part for key, part in least.items()} | {
        "along": {"pairs": [], "adapters": []},
        "adapters": [adapter | {"name": name, "norm": 1.0} for name in names],
        "pairs": [pair | row for row in both],
        "layers": [layer | row | {"layer": n} for row in both for n in range(3)],
    }
    return {"version": VERSION, "trainings": [], "geometry": geometry}


@pytest.mark.parametrize("key", ["step-size", "layers"])
def test_a_legend_names_every_adapter_within_the_page(key: str) -> None:
    given = strangers(26)
    figure = make(key, given)[0]
    index = index_of(given)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    wanted = {called(index, name) for name in index.models if key == "step-size" or name != index.reference}
    assert {text.get_text() for text in legend.get_texts()} >= wanted
    box = legend.get_window_extent()
    width, height = figure.get_size_inches() * figure.dpi
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    assert all(not box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert figure.axes[0].get_window_extent().height > 1.5 * figure.dpi, "the axes keep their room"


def test_a_point_under_a_point_shows_its_rim() -> None:
    given = strangers(4)
    axes = make("step-size", given)[0].axes[0]
    index = index_of(given)
    names = [called(index, name) for name in list(index.models)[1:]]
    sizes = [next(line for line in axes.lines if line.get_label() == name).get_markersize() for name in names]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3, "at one place, each wider than the next"
    faces = [next(line for line in axes.lines if line.get_label() == name).get_markerfacecolor() for name in names]
    assert faces[:2] == ["none", "none"]


def test_lines_that_coincide_are_nested_and_others_are_left() -> None:
    one = np.column_stack([np.linspace(0, 1, 5), np.linspace(0, 1, 5)])
    assert covered([one, one + 0.001, one + np.array([0, 0.3]), one[:3]]) == [1, 0, 0, 0]
    assert covered([np.full((2, 2), np.nan), one[:2]]) == [0, 0]
    given = strangers(3)
    widths = [line.get_linewidth() for line in make("layers", given)[0].axes[0].lines]
    assert widths[0] > widths[1]


def test_the_axis_of_cka_tells_values_near_one_apart() -> None:
    given = results()
    for row in given["similarity"]["hidden"]:
        row["cka"] = 1 - (1 - row["cka"]) / 1000
        row["low"], row["high"] = row["cka"] - 2e-5, min(1.0, row["cka"] + 1e-5)
    figure, _, caption = make("cka", given)
    axes = figure.axes[0]
    index = index_of(given)
    last = {
        line.get_label(): axes.transData.transform((line.get_xdata()[-1], line.get_ydata()[-1]))[1]
        for line in axes.lines if line.get_label() in {called(index, name) for name in ("rft", "dft", "dpo")}
    }  # fmt: skip
    height = axes.get_window_extent().height
    assert last["RFT"] - last["DFT"] > 0.05 * height and last["DFT"] - last["DPO"] > 0.02 * height
    control = next(line for line in axes.lines if line.get_label() == "shuffled control")
    low, high = axes.get_ylim()
    assert low < min(control.get_ydata()) and 0.9999 < high < 1, "the control is still in sight"
    assert "stretched towards 1" in caption and "[1" not in caption
    assert [text.get_text() for text in axes.get_xticklabels()] == ["emb.", "0", "1", "2", "3"], (
        "as in the modules’ names"
    )


def test_panels_of_one_quantity_have_one_range() -> None:
    given = results()
    for key, which in (("spectra", "x"), ("accuracy", "x"), ("angles", "x"), ("cka", "y"), ("parting", "y")):
        ranges = {getattr(axes, f"get_{which}lim")() for axes in make(key, given)[0].axes}
        assert len(ranges) == 1, key
    spectra = make("spectra", given)[0]
    points = [x for axes in spectra.axes for line in axes.lines for x in line.get_xdata()]
    low, high = spectra.axes[0].get_xlim()
    assert low < min(points) and max(points) < high


def test_layers_of_two_stacks_have_a_panel_each() -> None:
    given = strangers(3)
    rows = given["geometry"]["layers"]
    given["geometry"]["layers"] = [{**row, "stack": stack} for row in rows for stack in ("encoder", "decoder")]
    axes = make("layers", given)[0].axes
    assert [panel.get_title() for panel in axes] == ["decoder", "encoder"]
    assert {tuple(line.get_xdata()) for panel in axes for line in panel.lines} == {(0, 1, 2)}
    assert make("layers", results())[0].axes[0].get_title() == ""


def test_a_caption_says_the_k_of_the_angles_that_it_shows() -> None:
    given = strangers(3)
    given["geometry"]["pairs"][-1] |= {"k": 10, "k_max": 10}  # a pair without the reference
    assert "smallest of the 4 principal angles" in make("angles", given)[2]
    given["geometry"]["pairs"][0]["k_max"] = 8
    assert "smallest of the 4 to 8 principal angles" in make("angles", given)[2]


def test_an_update_of_zero_has_no_cosine_to_itself() -> None:
    given = results()
    for row in given["geometry"]["adapters"]:
        row["norm"] = 0.0 if row["name"] == "dft" else row["norm"]
    for row in given["geometry"]["pairs"]:
        row["cosine"] = None if "dft" in (row["a"], row["b"]) else row["cosine"]
    figure, _, caption = make("cosines", given)
    image = np.ma.filled(figure.axes[0].images[0].get_array().astype(float), np.nan)
    at = [text.get_text() for text in figure.axes[0].get_xticklabels()].index("DFT")
    assert np.isnan(image[at]).all() and np.isnan(image[:, at]).all()
    assert np.diag(image)[0] == 1.0 and "Of an update of zero no cosine is defined" in caption


@pytest.mark.parametrize("name", ["模型甲", "🤖🦙 v2", "\ue000\u200b\x1b"])
def test_no_glyph_is_a_box(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = json.loads(json.dumps(strangers(3)).replace('"a-long-name-of-a-stranger-1"', json.dumps(name)))
    monkeypatch.setattr("report.figures.FIGURES", {key: FIGURES[key] for key in ("layers", "cosines")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each glyph that its font lacks
        drawn = draw(Results.model_validate(given), index_of(given), tmp_path)
    assert "stand as their numbers" in drawn["layers"].caption


def test_characters_without_a_glyph_stand_as_their_numbers() -> None:
    assert drawable("模型 v2") == "[U+6A21 578B] v2" and drawable("Zoë Ω α→β") == "Zoë Ω α→β"
    words = make("cosines", json.loads(json.dumps(strangers(3)).replace("a-long-name-of-a-stranger-1", "模型")))[0]
    assert "[U+6A21 578B]" in [text.get_text() for text in words.findobj(matplotlib.text.Text)]


def test_bringing_out_changes_nothing_where_nothing_is_hidden() -> None:
    given = results()
    axes = make("functions", given)[0].axes[0]
    before = [(line.get_markersize(), line.get_linewidth()) for line in axes.lines]
    bring_out(axes, index_of(given))
    assert [(line.get_markersize(), line.get_linewidth()) for line in axes.lines] == before


def test_every_task_has_a_panel_and_a_name_of_its_own_against_the_rate() -> None:
    given = results()
    task = given["evaluation"]["tasks"][0]
    tasks = [f"task-{i}" for i in range(6)]
    title = "Word problems of one school year, part {} of what was asked"
    given["evaluation"]["tasks"] = [{**task, "task": name, "title": title.format(name)} for name in tasks]
    figure = make("sweep", given)[0]
    labels = [axes.get_ylabel() for axes in figure.axes]
    right = [label for label in labels if label.startswith("right, ")]
    assert len(set(right)) == len(right) == 6
    shown = {str(line.get_label()) for axes in figure.axes for line in axes.lines}
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {label for label in shown if not label.startswith("_")} == legend


def test_a_variant_without_a_run_at_its_own_rate_has_a_line() -> None:
    given = results()
    row = next(row for row in given["trainings"] if row["name"] == "dpo-lr1e-3")
    for rate in (1e-3, 3e-4):
        name = f"dpo-lr{rate:g}-beta0.3"
        given["trainings"].append(row | {"name": name, "of": "dpo-beta0.3", "learning_rate": rate, "role": "sweep"})
        given["losses"].append(given["losses"][1] | {"name": name})
    labels = [str(line.get_label()) for line in make("sweep", given)[0].axes[2].lines]
    assert "DPO beta0.3" in labels
