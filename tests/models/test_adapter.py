"""PEFT folders read as factors: PEFT's own delta weights are the oracle; every refusal has its line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Generator, nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.pytorch_utils import Conv1D

from analysis.weights.modules import shared_modules
from models.adapter import AdapterFile, load_factors

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
    expected, adapter = peft_deltas(wrapped), load_factors(tmp_path)
    assert set(adapter) == set(expected) and len(expected) == 8
    for name, delta in expected.items():
        factors = adapter[name]
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
    factors = load_factors(tmp_path)[name]
    assert factors.b.shape == (36, 2)
    torch.testing.assert_close((factors.b @ factors.a).float().T, delta, rtol=1e-5, atol=1e-5)


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    )


def gpt2() -> nn.Module:
    sizes = {"vocab_size": 32, "n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1))


def t5() -> nn.Module:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0)
    )


def bert() -> nn.Module:
    config = BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    return BertForSequenceClassification(config)


def mixtral() -> nn.Module:
    config = MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    return MixtralForCausalLM(config)


@pytest.mark.parametrize(
    ("make", "settings", "count", "beside"),
    [
        (llama, {"target_modules": "all-linear"}, 14, ""),
        (llama, {"target_modules": ["q_proj", "lm_head"]}, 3, ""),
        (llama, {"target_modules": ["q_proj", "embed_tokens"]}, 2, "LoRA on the embeddings model.embed_tokens is left"),
        (llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, 2, "lm_head.weight saved whole beside"),
        (llama, {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}, 2, "trainable_tokens_delta saved"),
        (llama, {"target_modules": ["q_proj"], "init_lora_weights": "mica"}, 2, ""),
        (llama, {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}, 1, ""),
        (llama, {"target_modules": ["q_proj", "k_proj"], "exclude_modules": "model.layers.0.self_attn.q_proj"}, 3, ""),
        (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"]}, 8, ""),
        (gpt2, {"target_modules": ["c_attn", "lm_head"]}, 3, ""),
        (gpt2, {"target_modules": ["c_attn", "wte"]}, 2, "LoRA on the embeddings transformer.wte is left out"),
        (t5, {"target_modules": ["q", "v", "wo"], "task_type": "SEQ_2_SEQ_LM"}, 16, ""),
        (bert, {"target_modules": ["query"], "task_type": "SEQ_CLS"}, 2, "classifier.bias, classifier.weight saved"),
        (mixtral, {"target_modules": ["q_proj"]}, 1, ""),
    ],
)
def test_the_linear_part_of_whatever_peft_writes(
    tmp_path: Path, make: Callable[[], nn.Module], settings: dict, count: int, beside: str
) -> None:
    """Heads, embeddings and base weights that PEFT puts beside the factors are no part of the delta, and are named."""
    wrapped = get_peft_model(make(), LoraConfig(r=4, lora_alpha=6, **settings))  # type: ignore[arg-type]
    fill(wrapped, 3)
    wrapped.save_pretrained(tmp_path)
    adapter = load_factors(tmp_path)
    expected = {
        name: delta for name, delta in peft_deltas(wrapped).items() if "embed" not in name and "wte" not in name
    }
    assert set(adapter) == set(expected) and len(expected) == count
    for name, delta in expected.items():
        base = wrapped.get_submodule(f"base_model.model.{name}").get_base_layer()  # type: ignore[operator]
        factors = adapter[name]
        found = (factors.b @ factors.a).float()
        torch.testing.assert_close(found.T if isinstance(base, Conv1D) else found, delta, rtol=1e-5, atol=1e-5)
    lines = AdapterFile(tmp_path).beside_factors()
    assert (beside in lines[0] and len(lines) == 1) if beside else lines == []


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda key: f"_orig_mod.{key}",
        lambda key: key.replace(".self_attn.", "._orig_mod.self_attn."),
        lambda key: f"module.{key}",
        lambda key: key.removeprefix("base_model.model."),
        lambda key: key.replace("base_model.model.", "base_model.model.module."),
        lambda key: key.replace(".self_attn.", "._fsdp_wrapped_module._checkpoint_wrapped_module.self_attn."),
        lambda key: key.replace(".weight", ".default.weight"),
    ],
)
def test_names_that_a_wrapper_left_its_mark_in(folder: Path, rename: Callable[[str], str]) -> None:
    expected = load_factors(folder)
    edit_weights(folder, lambda t: [t.update({rename(key): t.pop(key)}) for key in list(t)] and None)
    found = load_factors(folder)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name].b, expected[name].b) for name in expected)


def test_names_with_a_prefix_less_are_those_of_the_others(folder: Path, tmp_path: Path) -> None:
    """An adapter of the inner model, without "model." in front, has the same modules."""
    inner = Path(shutil.copytree(folder, tmp_path / "inner"))
    edit_weights(
        inner, lambda t: [t.update({k.replace(".model.layers", ".layers"): t.pop(k)}) for k in list(t)] and None
    )
    whole, part = AdapterFile(folder), AdapterFile(inner)
    assert part.modules[0] == "layers.0.self_attn.k_proj"
    for files in ([whole, part], [part, whole]):
        assert shared_modules([file.modules for file in files]) == whole.modules
    name = whole.modules[3]
    assert torch.equal(part.factors(name).b, whole.factors(name).b) and part.shape(name) == whole.shape(name)
    with pytest.raises(ValueError, match="share no module"):
        shared_modules([["encoder.layers.0.q", "decoder.layers.0.q"], ["layers.0.q"]])


@pytest.mark.parametrize(
    ("a", "b", "line"),
    [
        (1e200, 1e200, "its update is beyond 1e\\+30"),
        (1e200, 1e-200, "its update is beyond 1e\\+30, or a factor is"),
        (1e-200, 1.0, "its update is below 1e-60"),
        (5e-324, 5e-324, "its update is below 1e-60"),
        (float("nan"), 1.0, "NaN or inf"),
        (1.0, float("-inf"), "NaN or inf"),
    ],
)
def test_float64_factors_beyond_what_can_be_squared(folder: Path, a: float, b: float, line: str) -> None:
    sizes = {"A": a, "B": b}
    edit_weights(
        folder, lambda t: t.update({k: torch.full(v.shape, sizes[k[-8]], dtype=torch.float64) for k, v in t.items()})
    )
    with pytest.raises(ValueError, match=line) as caught:
        load_factors(folder)
    assert "\n" not in str(caught.value)


def test_float32_denormals_are_numbers(folder: Path) -> None:
    edit_weights(folder, lambda t: t.update({k: torch.full(v.shape, 1e-42) for k, v in t.items() if "lora_B" in k}))
    factors = load_factors(folder)["model.layers.0.self_attn.q_proj"]
    assert float(factors.b[0, 0]) == pytest.approx(2e-42, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_scale_in_float64(folder: Path, dtype: torch.dtype) -> None:
    edit_config(folder, lora_alpha=3)
    edit_weights(folder, lambda t: t.update({key: value.to(dtype) for key, value in t.items()}))
    raw = load_file(folder / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    factors = load_factors(folder)[name]
    assert factors.b.dtype == torch.float64
    expected = raw[f"base_model.model.{name}.lora_B.weight"].double() * (3 / 8)
    assert torch.equal(factors.b, expected)
    assert load_factors(folder, dtype=torch.float32)[name].a.dtype == torch.float32


def test_names_order_and_reading_by_module(folder: Path) -> None:
    names = AdapterFile(folder).modules
    assert names[0] == "model.layers.0.self_attn.k_proj" and len(names) == 8
    whole = load_factors(folder)
    opened = AdapterFile(folder)
    assert list(whole) == opened.modules == names
    assert torch.equal(opened.factors(names[3]).b, whole[names[3]].b)
    assert opened.shape(names[3]) == (len(whole[names[3]].b), whole[names[3]].a.shape[1])
    with pytest.raises(ValueError, match=r"no LoRA factors for model\.elsewhere"):
        opened.factors("model.elsewhere")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"use_dora": True}, "use_dora is set"),
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
        load_factors(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_is_named_by_module(folder: Path, value: float) -> None:
    key = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
    edit_weights(folder, lambda t: t[key].__setitem__((2, 3), value))
    with pytest.raises(ValueError, match=r"module model\.layers\.1\.self_attn\.v_proj: NaN or inf"):
        load_factors(folder)


def test_damaged_weights_name_their_file(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for cut in (0, 4, 200, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"adapter_model\.safetensors: damaged or truncated"):
            load_factors(folder)


def test_odd_tensors(folder: Path) -> None:
    key = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
    edit_weights(folder, lambda t: t.pop(key) is None)
    with pytest.raises(ValueError, match=r"v_proj has only lora_B"):
        load_factors(folder)
    edit_weights(folder, lambda t: t.update({key: torch.zeros(5, 64)}))
    with pytest.raises(ValueError, match="are not out x r and r x in"):
        load_factors(folder)
    edit_weights(folder, lambda t: t.update({"base_model.model.x.lora_magnitude_vector": torch.zeros(5)}))
    with pytest.raises(ValueError, match="lora_magnitude_vector is no LoRA factor"):
        load_factors(folder)


def test_factors_that_are_no_factors(folder: Path) -> None:
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_{}.weight"
    edit_weights(folder, lambda t: t.update({name.format("A"): torch.zeros(8, 64, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=r"factors of torch\.float32 and torch\.int8 are no real numbers"):
        load_factors(folder)
    edit_weights(folder, lambda t: t.update({name.format("A"): torch.zeros(8, 64)}))
    edit_weights(folder, lambda t: t.update({name.format("B.default"): torch.zeros(32, 8)}))
    with pytest.raises(ValueError, match="are the same factor"):
        load_factors(folder)


def test_missing_parts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors; give the folder"):
        load_factors(tmp_path / "nowhere")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(ValueError, match=r"is a pickle and is not opened; convert it"):
        load_factors(pickled)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_factors(folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match="peft_type is None"):
        load_factors(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"no adapter_config\.json, so the scale"):
        load_factors(folder)
