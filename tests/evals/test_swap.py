"""Adapters swapped into vLLM's own weights: the answers of Transformers with PEFT, and not a bit left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evals import canary
from evals.engines import Sampling, open_engine
from evals.engines.settings import EngineConfig
from evals.engines.swap import Swap
from evals.engines.transformers import TransformersEngine
from evals.engines.vllm import VllmEngine

PLAIN = EngineConfig(kind="transformers", precision="float32")
Models = dict[str, Path | None]


@pytest.fixture(scope="module")
def engine(served_model: Path) -> Iterator[VllmEngine]:
    opened = open_engine(
        "vllm", served_model, precision="float32", adapters="swapped", max_lora_rank=8, max_model_len=64, cache_gib=0.25
    )
    assert isinstance(opened, VllmEngine)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reference(served_model: Path) -> TransformersEngine:
    return TransformersEngine(served_model, replace(PLAIN, max_lora_rank=8, max_model_len=64))


def test_greedy_tokens_equal_transformers_in_any_order(
    engine: VllmEngine, reference: TransformersEngine, models: Models, prompts: list[list[int]]
) -> None:
    for name in ("first", "base", "second", "first", "second", "base"):
        found = engine.generate(prompts, Sampling(max_tokens=20), models[name])
        assert found == reference.generate(prompts, Sampling(max_tokens=20), models[name]), name


def test_the_base_comes_back_to_the_bit(
    engine: VllmEngine, served_model: Path, models: Models, prompts: list[list[int]], tmp_path: Path
) -> None:
    before = engine.top_logprobs(prompts, 20)
    first = engine.top_logprobs(prompts, 20, models["first"])
    assert first != before
    zero = canary.zero_adapter(tmp_path, served_model, ["q_proj", "k_proj", "v_proj", "o_proj"])
    assert engine.top_logprobs(prompts, 20, zero) == before
    engine.top_logprobs(prompts, 20, models["second"])
    assert engine.top_logprobs(prompts, 20) == before
    assert engine.top_logprobs(prompts, 20, models["first"]) == first


def test_the_canary_passes_and_finds_an_adapter_that_stayed_behind(
    engine: VllmEngine, served_model: Path, models: Models, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = canary.check(engine, served_model, models, prompts[:16])
    assert all(row["passed"] and row["told_apart"] for row in rows)
    assert max(row["max_difference"] for row in rows) < 1e-5
    monkeypatch.setattr(engine, "_swap_in", lambda swap, adapter: None)
    rows = canary.check(engine, served_model, models, prompts[:16])
    assert [row["name"] for row in rows if not row["passed"]] == ["base", "first"]  # the second is in the weights


def test_what_is_loaded_is_the_base_plus_the_update(served_model: Path, models: Models) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = models["first"]
    assert adapter is not None
    base = AutoModelForCausalLM.from_pretrained(served_model, dtype=torch.float32)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().state_dict()
    swap = Swap(served_model)
    loaded = dict(swap.weights(adapter))
    # The attention whole, and nothing else.
    assert loaded.keys() == {name for name in merged if ".self_attn." in name}
    for name, value in loaded.items():
        torch.testing.assert_close(value.float(), merged[name], rtol=0, atol=2e-6)
    back = dict(swap.weights(None))
    assert back.keys() == loaded.keys() and all(torch.equal(value, before[name]) for name, value in back.items())
    assert list(swap.weights(None)) == [], "the base stands in the weights already"


@pytest.fixture
def changed(models: Models, tmp_path: Path) -> Callable[..., Path]:
    def change(**settings: object) -> Path:
        assert models["first"] is not None
        folder = Path(shutil.copytree(models["first"], tmp_path / "changed"))
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        return folder

    return change


def test_rslora_is_scaled_by_its_own_rule(served_model: Path, models: Models, changed: Callable[..., Path]) -> None:
    plain, rs = (dict(Swap(served_model).weights(a)) for a in (models["first"], changed(use_rslora=True)))
    base = dict(_of(served_model))
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(rs[name] - base[name], (plain[name] - base[name]) * 8**0.5, rtol=1e-4, atol=1e-5)


def _of(model: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors.torch import load_file

    yield from load_file(model / "model.safetensors").items()


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"rank_pattern": {"q_proj": 4}}, {"alpha_pattern": {"q_proj": 4}}, {"bias": "all"}]
)
def test_an_update_that_is_no_plain_lora_is_refused(
    served_model: Path, changed: Callable[..., Path], settings: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is set.*engine.adapters=lora"):
        Swap(served_model).weights(changed(**settings))


@pytest.mark.parametrize("key", ["lm_head.weight", "model.embed_tokens.lora_embedding_A"])
def test_what_was_trained_beside_the_linear_layers_is_refused(
    served_model: Path, changed: Callable[..., Path], key: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = changed()
    tensors = load_file(folder / "adapter_model.safetensors") | {f"base_model.model.{key}": torch.zeros(8, 64)}
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"it holds .*, which cannot be swapped in; use engine.adapters=lora"):
        Swap(served_model).weights(folder)


def test_an_adapter_of_another_base_changes_nothing(
    engine: VllmEngine, write_adapter: Callable[..., Path], models: Models, prompts: list[list[int]], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, Qwen3Config

    deeper = Qwen3Config(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(deeper).save_pretrained(tmp_path / "deeper")
    other = write_adapter(tmp_path / "other", tmp_path / "deeper", seed=3)
    before = engine.top_logprobs(prompts, 20, models["first"])
    with pytest.raises(ValueError, match=r"adapts model.layers.2.*which the base does not have"):
        engine.generate(prompts, Sampling(max_tokens=2), other)
    assert engine.top_logprobs(prompts, 20, models["first"]) == before


def test_swapping_is_for_vllm_in_float32(served_model: Path) -> None:
    for kind, precision, line in (
        ("transformers", "float32", "adapters: swapped needs engine.kind=vllm: Transformers serves with PEFT"),
        ("vllm", "bfloat16", "adapters: swapped needs engine.precision=float32: in bfloat16 the sum rounds"),
    ):
        with pytest.raises(ValueError, match=line):
            open_engine(kind, served_model, precision=precision, adapters="swapped")
