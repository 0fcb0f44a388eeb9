"""What models are called: one label each, the same everywhere, and no two alike."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from report import headline
from report.model_index import BRIEF, _room, brief, dimensions, model_index
from tests.report.example_study import results

word = st.sampled_from(
    ["sft", "SFT", "rft", "RFT", "dpo", "base", "Base", "v2", "x" * 30, "\u202e", "\x1b", " ", "模型"]
)
name = st.builds("".join, st.lists(word | st.sampled_from("-_ ") | st.text(max_size=2), min_size=1, max_size=5))


@given(st.lists(name, min_size=1, max_size=9, unique=True))
@example(["SFT", "sft", "rft_v2", "rft-v2", "RFT v2"])
@example(["a\x1b", "a\u241b", "a\u241b (2)"])
def test_no_two_models_have_one_label(names: list[str]) -> None:
    index = model_index({"losses": [{"name": name} for name in ("base", *names)]})
    for called in ([m.label for m in index.models.values()], [m.brief for m in index.models.values()]):
        assert len(set(called)) == len(called)
        assert not {unicodedata.category(c) for label in called for c in label} & {"Cc", "Cf", "Cn", "Co"}
    assert all(_room(model.brief) <= BRIEF + len(" (10)") for model in index.models.values())


def test_a_usual_name_is_kept_where_it_is_ones_own() -> None:
    names = ["sft", "rft_v2", "SFT", "rft-v2", "dpo-lr3e-4", "offline_grpo"]
    index = model_index({"losses": [{"name": name} for name in names]})
    assert [index.label(name) for name in names] == ["sft", "rft_v2", "SFT", "rft-v2", "DPO lr3e-4", "Offline GRPO"]


@pytest.mark.parametrize("width", [5, 11, 22])
def test_a_brief_text_is_cut_in_its_middle(width: int) -> None:
    assert brief("a" * width, width) == "a" * width
    assert brief("begin" + "x" * 40 + "end", width).replace("…", "").strip("beginxd") == ""
    assert len(brief("begin" + "x" * 40 + "end", width)) <= width


def test_a_replica_is_called_the_same_in_the_headline_as_elsewhere() -> None:
    given = results()
    index = model_index(given)
    floors = {row.name: row.label for row in headline.rows(given, index) if row.kind == "floor"}
    assert floors == {name: index.label(name) for name in ("sft-order43", "sft-init43", "dpo-lr3e-4")}


def test_the_k_that_is_said_is_the_k_of_the_angles_shown() -> None:
    pairs = [{"a": "x", "b": "y", "k": 4, "k_max": 4}, {"a": "y", "b": "z", "k": 10, "k_max": 10}]
    given = {"geometry": {"k": 10, "pairs": pairs}}
    assert dimensions(given, pairs[:1]) == "4" and dimensions(given, pairs) == "4 to 10"
    assert dimensions(given, [{"k": None, "k_max": None}]) == "10" and dimensions({}, []) == ""
    assert dimensions(given, [{"k": 3, "k_max": 8}]) == "3 to 8", "ranks that differ between modules"
