from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from methods.training.lora import attach
from models.base import load

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def test_start(tiny_model: Path) -> None:
    """A uniform within 1 / sqrt(in), from (seed, module name) alone; B zero; base frozen; all float32."""
    adapter = attach(load(tiny_model, "bfloat16", "sdpa"), TARGETS, 4, 8, 0.0, 1)
    assert len(adapter.a) == 8 and "model.layers.1.self_attn.o_proj" in adapter.a
    for name, a in adapter.a.items():
        assert a.dtype == torch.float32 and a.shape[0] == 4
        bound = a.shape[1] ** -0.5
        assert 0.9 * bound < a.abs().max() <= bound
        assert not adapter.b[name].any() and torch.equal(a, adapter.initial[name])
    trained = {id(p) for p in adapter.parameters.values()}
    assert all(p.requires_grad == (id(p) in trained) for p in adapter.model.parameters())


def test_start_depends_on_seed_and_name_alone(tiny_model: Path) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    one = attach(load(tiny_model, "float32", "sdpa"), TARGETS, 4, 8, 0.0, 1).initial
    part = attach(load(tiny_model, "float32", "sdpa"), ("v_proj",), 4, 8, 0.0, 1).initial
    other = attach(load(tiny_model, "float32", "sdpa"), TARGETS, 4, 8, 0.0, 2).initial
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], part[name]) for name in part)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    q, k = (one[f"model.layers.0.self_attn.{p}_proj"] for p in "qk")
    assert not torch.equal(q, k)


def test_drift(tiny_model: Path) -> None:
    """Every entry of A moved by 0.5, one B set to ones: norms from the counts of entries."""
    adapter = attach(load(tiny_model, "float32", "sdpa"), TARGETS, 4, 8, 0.0, 1)
    entries = sum(a.numel() for a in adapter.a.values())
    start = sum(a.double().pow(2).sum().item() for a in adapter.initial.values()) ** 0.5
    with torch.no_grad():
        for a in adapter.a.values():
            a.add_(0.5)
        b = adapter.b["model.layers.0.self_attn.k_proj"].fill_(1.0)
    expected = [0.5 * entries**0.5, start, b.numel() ** 0.5]
    assert adapter.drift().tolist() == pytest.approx(expected, rel=1e-5)


def test_saved_adapter_is_readable_by_peft(tiny_model: Path, tmp_path: Path) -> None:
    adapter = attach(load(tiny_model, "float32", "sdpa"), TARGETS, 4, 8, 0.0, 1)
    with torch.no_grad():
        for seed, b in enumerate(adapter.b.values()):
            b.normal_(generator=torch.Generator().manual_seed(seed))
    adapter.save(tmp_path / "adapter", "someone/base")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "someone/base" and config["peft_type"] == "LORA"
    assert config["target_modules"] == sorted(TARGETS) and (config["r"], config["lora_alpha"]) == (4, 8)
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 16 and {t.dtype for t in tensors.values()} == {torch.float32}
    ids = torch.arange(2, 12)[None]
    read = PeftModel.from_pretrained(load(tiny_model, "float32", "sdpa"), tmp_path / "adapter").eval()
    ours = adapter.model.eval()
    assert torch.equal(read(input_ids=ids).logits, ours(input_ids=ids).logits)
    with ours.disable_adapter():
        assert not torch.allclose(read(input_ids=ids).logits, ours(input_ids=ids).logits, atol=1e-3)


def test_target_without_match_names_what_is_there(tiny_model: Path) -> None:
    line = "adapter target 'c_attn' matches no module of this model; it has: down_proj, gate_proj, k_proj,"
    with pytest.raises(ValueError, match=line):
        attach(load(tiny_model, "float32", "sdpa"), ("q_proj", "c_attn"), 4, 8, 0.0, 1)


def test_other_architectures() -> None:
    """Llama's projections and GPT-2's fused one, whose weight is transposed: A is r x in for both."""
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    )
    adapter = attach(llama.requires_grad_(False), ("q_proj", "v_proj"), 2, 4, 0.0, 1)
    assert sorted(adapter.a) == [f"model.layers.0.self_attn.{p}_proj" for p in "qv"]
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    adapter = attach(gpt2.requires_grad_(False), ("c_attn",), 2, 4, 0.0, 1)
    assert list(adapter.a) == ["transformer.h.0.attn.c_attn"]
    assert adapter.a["transformer.h.0.attn.c_attn"].shape == (2, 16)
    assert adapter.b["transformer.h.0.attn.c_attn"].shape == (48, 2)
    assert adapter.model.peft_config["default"].fan_in_fan_out is True
