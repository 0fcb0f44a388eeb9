"""PEFT folders read as factors: PEFT's own delta weights are the oracle; every refusal has its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Generator, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from analysis.lora import (
    AdapterFile,
    Factors,
    interpolate,
    layer_of,
    load_adapter,
    module_names,
    projection_of,
    shared_modules,
)

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, write_adapter: Callable[..., Path]) -> Path:
    return write_adapter(tmp_path / "adapter", tiny_model, seed=1)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def peft_deltas(model: nn.Module) -> dict[str, torch.Tensor]:
    """PEFT's get_delta_weight a module: the oracle."""
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if isinstance(module, nn.Module) and "default" in getattr(module, "lora_A", {})
    }


def fill(model: nn.Module, seed: int) -> None:
    generator = Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if "lora_" in name:
            value.data = torch.randn(value.shape, generator=generator)


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 8, "lora_alpha": 16},
        {"r": 8, "lora_alpha": 7, "use_rslora": True},
        {
            "r": 4,
            "lora_alpha": 12,
            "rank_pattern": {"q_proj": 6, "model.layers.1.self_attn.k_proj": 2, r"layers\.0.*v_proj": 3},
            "alpha_pattern": {"o_proj": 5, "^model.layers.0.self_attn.q_proj": 9},
        },
    ],
)
def test_delta_equals_pefts(tmp_path: Path, tiny_model: Path, settings: dict) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    wrapped = get_peft_model(model, LoraConfig(target_modules=TARGETS, **settings))
    fill(wrapped, 1)
    wrapped.save_pretrained(tmp_path)
    expected, adapter = peft_deltas(wrapped), load_adapter(tmp_path)
    assert set(adapter.modules) == set(expected) and len(expected) == 8
    for name, delta in expected.items():
        factors = adapter.modules[name]
        torch.testing.assert_close((factors.b @ factors.a).float(), delta, rtol=1e-5, atol=1e-5)


def test_fan_in_fan_out_is_the_map_of_a_transposed_weight(tmp_path: Path) -> None:
    """GPT-2 stores in x out: PEFT's delta for that weight is the transpose of the linear map's."""
    config = GPT2Config(vocab_size=16, n_positions=8, n_embd=12, n_layer=1, n_head=2)
    wrapped = get_peft_model(
        GPT2LMHeadModel(config), LoraConfig(r=2, lora_alpha=6, target_modules=["c_attn"], fan_in_fan_out=True)
    )
    fill(wrapped, 2)
    wrapped.save_pretrained(tmp_path)
    ((name, delta),) = peft_deltas(wrapped).items()
    factors = load_adapter(tmp_path).modules[name]
    assert factors.b.shape == (36, 2)
    torch.testing.assert_close((factors.b @ factors.a).float().T, delta, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_scale_in_float64(folder: Path, dtype: torch.dtype) -> None:
    edit_config(folder, lora_alpha=3)
    edit_weights(folder, lambda t: t.update({key: value.to(dtype) for key, value in t.items()}))
    raw = load_file(folder / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    factors = load_adapter(folder).modules[name]
    assert factors.b.dtype == torch.float64
    expected = raw[f"base_model.model.{name}.lora_B.weight"].double() * (3 / 8)
    assert torch.equal(factors.b, expected)
    assert load_adapter(folder, dtype=torch.float32).modules[name].a.dtype == torch.float32


def test_names_order_and_reading_by_module(folder: Path) -> None:
    names = module_names(folder)
    assert names[0] == "model.layers.0.self_attn.k_proj" and len(names) == 8
    whole = load_adapter(folder, name="sft")
    opened = AdapterFile(folder)
    assert whole.name == "sft" and list(whole.modules) == opened.modules == names
    assert torch.equal(opened.factors(names[3]).b, whole.modules[names[3]].b)
    assert opened.shape(names[3]) == (len(whole.modules[names[3]].b), whole.modules[names[3]].a.shape[1])
    with pytest.raises(ValueError, match=r"no LoRA factors for model\.elsewhere"):
        opened.factors("model.elsewhere")


def test_parts_of_a_name() -> None:
    assert layer_of("model.layers.12.self_attn.q_proj") == 12
    assert layer_of("transformer.h.3.attn.c_attn") == 3
    assert layer_of("lm_head") is None
    assert projection_of("model.layers.12.self_attn.q_proj") == "q_proj"
    assert shared_modules([["l.10.q", "l.2.q", "x"], {"l.2.q", "l.10.q"}]) == ["l.2.q", "l.10.q"]
    with pytest.raises(ValueError, match="share no module"):
        shared_modules([["a"], ["b"]])


def test_interpolation_is_exact_and_of_rank_2r() -> None:
    generator = Generator().manual_seed(0)
    f = Factors(torch.randn(9, 3, generator=generator), torch.randn(3, 7, generator=generator))
    g = Factors(torch.randn(9, 2, generator=generator), torch.randn(2, 7, generator=generator))
    found = interpolate(f, g, 0.3)
    assert found.a.shape == (5, 7)
    torch.testing.assert_close(found.b @ found.a, 0.3 * f.b @ f.a + 0.7 * g.b @ g.a)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"use_dora": True}, "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"lora_bias": True}, "lora_bias is set"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"init_lora_weights": "pissa_niter_4"}, "also changed the base"),
        ({"r": 4}, "rank 4 by the config, 8 by the weights"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"alpha_pattern": {"q_proj": "8"}}, "alpha_pattern is no mapping of patterns to numbers"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is no mapping"),
        ({"rank_pattern": {"q_proj(": 8}}, "is no pattern"),
    ],
)
def test_refused_configs(folder: Path, change: dict, line: str) -> None:
    edit_config(folder, **change)
    with pytest.raises(ValueError, match=line) as caught:
        load_adapter(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_is_named_by_module(folder: Path, value: float) -> None:
    key = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
    edit_weights(folder, lambda t: t[key].__setitem__((2, 3), value))
    with pytest.raises(ValueError, match=r"module model\.layers\.1\.self_attn\.v_proj: NaN or inf"):
        load_adapter(folder)


def test_damaged_weights_name_their_file(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for cut in (0, 4, 200, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"adapter_model\.safetensors: damaged or truncated"):
            load_adapter(folder)


def test_odd_tensors(folder: Path) -> None:
    key = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
    edit_weights(folder, lambda t: t.pop(key) is None)
    with pytest.raises(ValueError, match=r"v_proj has only lora_B"):
        load_adapter(folder)
    edit_weights(folder, lambda t: t.update({key: torch.zeros(5, 64)}))
    with pytest.raises(ValueError, match="are not out x r and r x in"):
        load_adapter(folder)
    edit_weights(folder, lambda t: t.update({"base_model.model.x.lora_magnitude_vector": torch.zeros(5)}))
    with pytest.raises(ValueError, match="lora_magnitude_vector is no LoRA factor"):
        load_adapter(folder)


def test_factors_that_are_no_factors(folder: Path) -> None:
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_{}.weight"
    edit_weights(folder, lambda t: t.update({name.format("A"): torch.zeros(8, 64, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=r"factors of torch\.float32 and torch\.int8 are no real numbers"):
        load_adapter(folder)
    edit_weights(folder, lambda t: t.update({name.format("A"): torch.zeros(8, 64)}))
    edit_weights(folder, lambda t: t.update({name.format("B.default"): torch.zeros(32, 8)}))
    with pytest.raises(ValueError, match="one and the same factor"):
        load_adapter(folder)


def test_missing_parts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors; give the folder"):
        load_adapter(tmp_path / "nowhere")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(ValueError, match=r"is a pickle and is not opened; convert it"):
        load_adapter(pickled)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_adapter(folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match="peft_type is None"):
        load_adapter(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"no adapter_config\.json, so the scale"):
        load_adapter(folder)
