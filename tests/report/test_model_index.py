"""What models are called: one label each, the same everywhere, and no two alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from report import headline
from report.model_index import BRIEF, ModelIndex, _room, brief, dimensions, label, model_index
from results import VERSION, Results
from tests.report.example_study import typed

EXAMPLE = typed()
word = st.sampled_from(
    ["sft", "SFT", "rft", "RFT", "dpo", "base", "Base", "v2", "x" * 30, "\u202e", "\x1b", " ", "模型"]
)
name = st.builds("".join, st.lists(word | st.sampled_from("-_ ") | st.text(max_size=2), min_size=1, max_size=5))


def _index(names: Iterable[str]) -> ModelIndex:
    """Of a comparison of adapters from elsewhere: their names are all that is known."""
    assert EXAMPLE.geometry is not None
    adapters = [EXAMPLE.geometry.adapters[0].model_copy(update={"name": name}) for name in names]
    geometry = EXAMPLE.geometry.model_copy(update={"adapters": adapters})
    return model_index(Results(version=VERSION, trainings=[], geometry=geometry))


@given(st.lists(name, min_size=1, max_size=9, unique=True))
@example(["SFT", "sft", "rft_v2", "rft-v2", "RFT v2"])
@example(["a\x1b", "a\u241b", "a\u241b (2)"])
def test_no_two_models_have_one_label(names: list[str]) -> None:
    index = _index(dict.fromkeys(("base", *names)))
    for called in ([m.label for m in index.models.values()], [m.brief for m in index.models.values()]):
        assert len(set(called)) == len(called)
        assert not {unicodedata.category(c) for label in called for c in label} & {"Cc", "Cf", "Cn", "Co"}
    assert all(_room(model.brief) <= BRIEF + len(" (10)") for model in index.models.values())


def test_a_usual_name_is_kept_where_it_is_ones_own() -> None:
    names = ["sft", "rft_v2", "SFT", "rft-v2", "dpo-lr3e-4", "offline_grpo"]
    index = _index(names)
    assert [index.label(name) for name in names] == ["sft", "rft_v2", "SFT", "rft-v2", "DPO lr3e-4", "Offline GRPO"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("sft-startb", "SFT from a random B"), ("dpo-lr5e-4-startb", "DPO lr5e-4 from a random B"),
     ("sft-examplespaired-order43", "SFT on DPO’s rows, order43"),
     ("rft-rank8-startb", "RFT at rank 8 from a random B"),
     ("dpo-lr5e-4-batch_size12-order43", "DPO lr5e-4 at batch 12, order43"), ("rft-v2-x-1", "RFT v2-x-1"),
     
     ("dpo-lr5e-4-order43-init43", "DPO lr5e-4-order43-init43"), ("sft", "SFT"), ("sft-", "SFT ")],
)  # fmt: skip
def test_some_settings_in_a_name_are_words(name: str, words: str) -> None:
    assert label(name) == words


@pytest.mark.parametrize("width", [5, 11, 22])
def test_a_brief_text_is_cut_in_its_middle(width: int) -> None:
    assert brief("a" * width, width) == "a" * width
    assert brief("begin" + "x" * 40 + "end", width).replace("…", "").strip("beginxd") == ""
    assert len(brief("begin" + "x" * 40 + "end", width)) <= width


def test_a_replica_is_called_the_same_in_the_headline_as_elsewhere() -> None:
    index = model_index(EXAMPLE)
    floors = {row.name: row.label for row in headline.rows(EXAMPLE, index) if row.kind == "floor"}
    assert floors == {name: index.label(name) for name in ("sft-order43", "sft-init43", "dpo-lr3e-4")}


def test_the_k_that_is_said_is_the_k_of_the_angles_shown() -> None:
    told = EXAMPLE
    assert told.geometry is not None
    pair = told.geometry.pairs[0]
    few, many = pair.model_copy(update={"k": 4, "k_max": 4}), pair
    assert (pair.k, pair.k_max, told.geometry.k) == (10, 10, 10)
    assert dimensions(told, [few]) == "4" and dimensions(told, [few, many]) == "4 to 10"
    assert dimensions(told, [pair.model_copy(update={"k": None, "k_max": None})]) == "10"
    assert dimensions(told.model_copy(update={"geometry": None}), []) == ""
    assert dimensions(told, [pair.model_copy(update={"k": 3, "k_max": 8})]) == "3 to 8", "ranks differ between modules"
