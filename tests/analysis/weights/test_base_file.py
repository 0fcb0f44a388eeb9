"""A base's weights, one at a time: whole or sharded, however they are named, or one line that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from analysis.weights.base_file import BaseFile

NAME = "model.layers.0.self_attn.q_proj"
WEIGHT = torch.arange(6.0).reshape(2, 3)


def base(folder: Path, *parts: dict[str, torch.Tensor]) -> Path:
    """One part as a whole model, several as shards with their index."""
    if len(parts) == 1:
        save_file(parts[0], folder / "model.safetensors")
        return folder
    names = {key: f"model-{i}.safetensors" for i, part in enumerate(parts) for key in part}
    for i, part in enumerate(parts):
        save_file(part, folder / f"model-{i}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


@pytest.mark.parametrize("key", [f"{NAME}.weight", f"{NAME}.weight".removeprefix("model."), f"language.{NAME}.weight"])
def test_a_weight_is_found_by_its_name_with_a_prefix_more_or_less(tmp_path: Path, key: str) -> None:
    found = BaseFile(base(tmp_path, {key: WEIGHT}, {"model.norm.weight": torch.ones(3)}))
    assert torch.equal(found.weight(NAME, (2, 3)), WEIGHT)
    assert found.has(NAME) and not found.has("lm_head"), "a tied head has no weight of its own"


def test_a_conv1d_weight_is_turned(tmp_path: Path) -> None:
    found = BaseFile(base(tmp_path, {f"{NAME}.weight": WEIGHT}))
    assert torch.equal(found.weight(NAME, (3, 2), fan_in_fan_out=True), WEIGHT.T)
    with pytest.raises(ValueError, match=r"is \(2, 3\), the adapters' update \(3, 2\) \(out, in\): is this their base"):
        found.weight(NAME, (3, 2))


@pytest.mark.parametrize(
    ("kind", "stored", "shape", "told", "turned"),
    [
        ("llama", (2, 3), (2, 3), [False, False], False),
        ("gpt2", (2, 3), (3, 2), [False, False], True),  # PEFT writes what the last module told, here the head
        (None, (2, 3), (3, 2), [True, False], True),
        (None, (2, 3), (3, 2), [False, False], False),  # another base's
        ("gpt2", (2, 3), (2, 3), [True, True], False),  # a linear head beside Conv1D
        ("gpt2", (3, 3), (3, 3), [True, False], True),
        ("llama", (3, 3), (3, 3), [True, False], False),
        (None, (3, 3), (3, 3), [True, True], True),
    ],
)
def test_which_way_a_weight_is_stored(
    tmp_path: Path, kind: str | None, stored: tuple[int, int], shape: tuple[int, int], told: list[bool], turned: bool
) -> None:
    folder = base(tmp_path, {f"{NAME}.weight": torch.ones(stored)})
    if kind is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    assert BaseFile(folder).is_turned(NAME, shape, told) is turned


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model\.safetensors; name the folder"):
        BaseFile(tmp_path)
    quantised = BaseFile(base(tmp_path, {f"{NAME}.weight": WEIGHT.to(torch.int8)}))
    with pytest.raises(ValueError, match=r"is torch\.int8, quantised; give the base in 16 or 32 bits"):
        quantised.weight(NAME, (2, 3))
    with pytest.raises(ValueError, match=r"has no weight model\.other\.weight"):
        quantised.weight("model.other", (2, 3))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged or missing"):
        BaseFile(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    for text in ("{", "[]", json.dumps({"weight_map": {f"{NAME}.weight": "../../etc/passwd"}})):
        index.write_text(text)
        with pytest.raises(ValueError, match="no map of weights"):
            BaseFile(tmp_path)
    index.write_text(json.dumps({"weight_map": {f"{NAME}.weight": "gone.safetensors"}}))
    with pytest.raises(ValueError, match=r"gone\.safetensors: damaged or missing"):
        BaseFile(tmp_path).weight(NAME, (2, 3))
