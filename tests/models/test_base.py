"""One loader of a base: whole, or refused in a line that names what is missing; its text part and its limits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from models.base import load, positions, targeted, vocabulary

TEXT: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 48,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip


@pytest.fixture(scope="session")
def multimodal() -> transformers.PreTrainedModel:
    """A Gemma 3 of text and vision whose towers both have projections called q_proj."""
    config = transformers.Gemma3Config(text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def changed(model: Path, folder: Path, **weights: torch.Tensor | None) -> Path:
    """The model with weights left out (None) or exchanged."""
    shutil.copytree(model, folder)
    held = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        held.pop(name)
        if value is not None:
            held[name] = value
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_base_is_frozen_and_in_eval_mode(tiny_model: Path) -> None:
    """Its tied head is not on the disk, and no lack."""
    model = load(tiny_model, "float64")
    assert "lm_head.weight" not in load_file(tiny_model / "model.safetensors")
    assert model.dtype == torch.float64 and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_base_that_lacks_a_weight_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    folder = changed(tiny_model, tmp_path / "lacks", **{name: None})
    with pytest.raises(ValueError, match=rf"lacks 1 weights of its model \({name}\): save it again in full"):
        load(folder, "float32", "sdpa")


def test_a_head_that_is_tied_to_nothing_is_missed(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "untied"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ValueError, match=r"lacks 1 weights of its model \(lm_head\.weight\)"):
        load(folder, "float32", "sdpa")


def test_a_weight_of_another_shape_is_named(tiny_model: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    folder = changed(tiny_model, tmp_path / "shape", **{name: torch.zeros(64, 95)})
    with pytest.raises(ValueError, match=rf"1 weights have a shape that differs from its config \({name}\)") as caught:
        load(folder, "float32", "sdpa")
    assert "\n" not in str(caught.value)


def test_attention_that_the_model_does_not_know(tmp_path: Path) -> None:
    """XLNet knows none but its own: sdpa is refused with the mend, eager and no word load it."""
    config = transformers.XLNetConfig(vocab_size=64, d_model=32, n_layer=1, n_head=4, d_inner=48)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"this model does not support sdpa attention: set training\.attention=eager$"):
        load(tmp_path, "float32", "sdpa")
    for attention in ("eager", None):
        assert load(tmp_path, "float32", attention).config._attn_implementation == "eager"


def test_limits(multimodal: transformers.PreTrainedModel) -> None:
    """A multimodal model's are its text's; one without position embeddings has none."""
    assert (positions(multimodal.config), vocabulary(multimodal)) == (48, 64)
    assert positions(transformers.GPT2Config(n_positions=32)) == 32
    for without in (transformers.BloomConfig(), transformers.MambaConfig(), transformers.XLNetConfig()):
        assert positions(without) is None


def test_targets_lie_in_the_language_model(multimodal: transformers.PreTrainedModel) -> None:
    assert sum(name.endswith(".q_proj") for name, _ in multimodal.named_modules()) == 2
    assert list(targeted(multimodal, ["q_proj"])) == ["model.language_model.layers.0.self_attn.q_proj"]
    with pytest.raises(ValueError, match="adapter target 'fc1' matches no module of this model; it has: down_proj, ga"):
        targeted(multimodal, ["fc1"])


def test_the_output_head_is_no_target(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="adapter target 'lm_head' is the output head, which is not adapted here: lea"):
        targeted(load(tiny_model, "float32"), ["q_proj", "lm_head"])


DROPPING = {
    "modules": transformers.GPT2Config(vocab_size=64, n_positions=48, n_embd=32, n_layer=1, n_head=4),
    "a layer's numbers": transformers.OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=48, word_embed_proj_dim=32, dropout=0.3, attention_dropout=0.3,
    ),
    "its config's": transformers.FalconConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, hidden_dropout=0.3,
        attention_dropout=0.3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("config", DROPPING.values(), ids=DROPPING)
def test_the_bases_own_dropout_is_off_in_training_mode_too(
    tmp_path: Path, config: transformers.PretrainedConfig
) -> None:
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load(tmp_path, "float32", "sdpa")
    ids = torch.arange(3, 40)[None]
    quiet = model(input_ids=ids).logits
    model.train()
    assert torch.equal(model(input_ids=ids).logits, quiet)
