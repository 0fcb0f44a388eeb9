"""An adapter times a number: PEFT's logits of what is written, against the dense update added to the base's weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from analysis.weights.geometry import total_norm
from models.adapter import Start, load_factors
from models.scaled_adapter import write_scaled
from tests.conftest import Agreement

SCALE = 2.0  # alpha over rank of the random adapters
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, write_adapter: Callable[..., Path]) -> Path:
    return write_adapter(tmp_path / "adapter", tiny_model, seed=1)


def dense(folder: Path) -> dict[str, Tensor]:
    """Each module's update as a matrix, float64, from the file alone."""
    saved = load_file(folder / WEIGHTS)
    names = [name.removesuffix(".lora_A.weight") for name in saved if name.endswith(".lora_A.weight")]
    return {
        name.removeprefix("base_model.model."): SCALE
        * saved[f"{name}.lora_B.weight"].double() @ saved[f"{name}.lora_A.weight"].double()
        for name in names
    }  # fmt: skip


@pytest.mark.parametrize("start", ["a", "b"])
@pytest.mark.parametrize("factor", [13.25, 0.07])
def test_logits_are_those_of_the_base_plus_the_scaled_update(
    folder: Path, tiny_model: Path, tmp_path: Path, agreement: Agreement, start: Start, factor: float
) -> None:
    write_scaled(folder, tmp_path / "scaled", factor, start)
    updates = dense(folder)
    ids = torch.randint(0, 64, (3, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        plain = base(ids).logits
        for name, update in updates.items():
            base.get_submodule(name).weight += (factor * update).float()
        merged = base(ids).logits
        served = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        adapted = PeftModel.from_pretrained(served, tmp_path / "scaled")(ids).logits
    agreement("logits of base + c dW", adapted, merged, 2e-5)
    assert (merged - plain).abs().max() > 100 * (adapted - merged).abs().max(), "the update does something"


@pytest.mark.parametrize(("start", "grown", "kept"), [("a", "lora_B", "lora_A"), ("b", "lora_A", "lora_B")])
def test_the_factor_that_was_drawn_and_the_config_stay(
    folder: Path, tmp_path: Path, start: Start, grown: str, kept: str
) -> None:
    write_scaled(folder, tmp_path / "scaled", 3.0, start)
    one, two = (load_file(path / WEIGHTS) for path in (folder, tmp_path / "scaled"))
    assert one.keys() == two.keys() and {x.dtype for x in two.values()} == {torch.float32}
    for name, tensor in one.items():
        assert torch.equal(two[name], tensor if kept in name else 3 * tensor), name
    assert sum(grown in name for name in one) == len(one) // 2 == 8
    assert (tmp_path / "scaled" / "adapter_config.json").read_bytes() == (folder / "adapter_config.json").read_bytes()


def test_the_norm_is_that_of_the_dense_update_and_grows_with_the_factor(folder: Path, tmp_path: Path) -> None:
    """Over all modules: the root of the sum of squares of all their entries."""
    by_hand = math.sqrt(sum(float((update**2).sum()) for update in dense(folder).values()))
    assert total_norm(load_factors(folder)) == pytest.approx(by_hand, rel=1e-12)
    write_scaled(folder, tmp_path / "scaled", 0.4 / by_hand)
    assert total_norm(load_factors(tmp_path / "scaled")) == pytest.approx(0.4, rel=1e-6)
    assert total_norm({}) == 0


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_no_factor_that_takes_the_update_away_or_turns_it(folder: Path, tmp_path: Path, factor: float) -> None:
    with pytest.raises(ValueError, match="the factor must be above zero and finite"):
        write_scaled(folder, tmp_path / "scaled", factor)


def test_weights_beside_the_factors_are_refused(folder: Path, tmp_path: Path) -> None:
    saved = load_file(folder / WEIGHTS)
    save_file(saved | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"cannot be scaled: lm_head.weight saved whole"):
        write_scaled(folder, tmp_path / "scaled", 2.0)
