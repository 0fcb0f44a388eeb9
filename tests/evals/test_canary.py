"""The adapter of zeros that the canary asks for: PEFT's own on any base, and the base's own answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config

from evals.canary import zero_adapter


@pytest.mark.parametrize("targets", [["q_proj", "o_proj"], ["self_attn.q_proj"], ["mlp.down_proj", "k_proj"]])
def test_zeros_on_the_targets_give_the_base(served_model: Path, tmp_path: Path, targets: list[str]) -> None:
    _check(served_model, tmp_path, targets)


def test_zeros_fit_a_base_that_keeps_its_matrices_the_other_way_round(tmp_path: Path) -> None:
    config = GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=32, n_positions=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    _check(tmp_path / "gpt2", tmp_path, ["c_attn"])


def _check(model: Path, folder: Path, targets: list[str]) -> None:
    before = torch.get_rng_state()
    adapter = zero_adapter(folder / "zero", model, targets)
    assert torch.equal(torch.get_rng_state(), before)
    base = AutoModelForCausalLM.from_pretrained(model).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        expected = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, str(adapter)).eval()
        touched = [name for name, _ in adapted.named_parameters() if "lora_B" in name]
        assert touched and all(any(target in name for target in targets) for name in touched)
        assert torch.equal(adapted(input_ids=ids).logits, expected)
