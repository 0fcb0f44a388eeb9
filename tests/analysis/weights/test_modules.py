"""Modules told apart by their names: layers, projections, stacks of layers, and what several adapters share."""

from __future__ import annotations

import pytest

from analysis.weights.modules import layer_of, places, projection_of, shared_modules
from analysis.weights.summary import grouped


def test_parts_of_a_name() -> None:
    assert layer_of("model.layers.12.self_attn.q_proj") == 12
    assert layer_of("transformer.h.3.attn.c_attn") == 3
    assert layer_of("lm_head") is None


@pytest.mark.parametrize(
    ("stacks", "words"),
    [
        (("model.encoder.layers", "model.decoder.layers"), ("encoder", "decoder")),
        (("encoder.block", "decoder.block"), ("encoder", "decoder")),
        (
            ("model.language_model.layers", "model.vision_tower.vision_model.encoder.layers"),
            ("language_model", "vision_tower"),
        ),
        (("model.layers", "model.visual.blocks"), ("layers", "visual")),
        (("model.a.x.layers", "model.a.y.layers", "model.b.layers"), ("a.x.layers", "a.y.layers", "b")),
        (("model.layers", "model.layers.more"), ("model.layers", "more")),
        (("model.layers",), (None,)),
    ],
)
def test_layers_of_unlike_stacks_are_told_apart(stacks: tuple[str, ...], words: tuple[str | None, ...]) -> None:
    names = {f"{stack}.{layer}.mlp.experts.7.up_proj": (word, layer) for stack, word in zip(stacks, words, strict=True)
             for layer in (0, 11)}  # fmt: skip
    found = places([*names, "lm_head"])
    several = len(stacks) > 1
    for name, (word, layer) in names.items():
        assert found[name] == {"layer": layer, "projection": "up_proj"} | ({"stack": word} if several else {})
    assert found["lm_head"] == {"layer": None, "projection": "lm_head"} | ({"stack": None} if several else {})
    assert projection_of("model.layers.12.self_attn.q_proj") == "q_proj"
    assert shared_modules([["l.10.q", "l.2.q", "x"], {"l.2.q", "l.10.q"}]) == ["l.2.q", "l.10.q"]
    with pytest.raises(ValueError, match="share no module"):
        shared_modules([["a"], ["b"]])


def test_groups_keep_stacks_apart_and_are_in_order() -> None:
    names = ["m.encoder.layers.1.q", "m.encoder.layers.0.q", "m.decoder.layers.0.q", "m.decoder.layers.0.v", "lm_head"]
    where = places(names)
    assert grouped(where.values(), "layer") == [
        ({"stack": "decoder", "layer": 0}, [2, 3]),
        ({"stack": "encoder", "layer": 0}, [1]),
        ({"stack": "encoder", "layer": 1}, [0]),
    ]
    assert grouped(where.values(), "projection")[0] == ({"stack": None, "projection": "lm_head"}, [4])
    assert grouped(places(names[:2]).values(), "layer") == [({"layer": 0}, [1]), ({"layer": 1}, [0])]
