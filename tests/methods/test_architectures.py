"""Bases whose attention is named or built otherwise: trained right, or refused in a line that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.logprobs import reference_logprobs
from methods.training.trainer import train
from models.base import load
from models.logprobs import completion_logps

Make = Callable[..., TrainConfig]
SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
CASES = {
    "llama": (transformers.LlamaConfig(**GROUPED, tie_word_embeddings=False), ATTENTION),
    "gemma": (transformers.GemmaConfig(**GROUPED), ATTENTION),
    "gemma3": (transformers.Gemma3TextConfig(**GROUPED, sliding_window=16), ATTENTION),
    "gemma3 with a vision tower": (
        transformers.Gemma3Config(
            text_config=GROUPED,
            mm_tokens_per_image=4,
            vision_config=SMALL | {"num_hidden_layers": 1, "image_size": 28, "patch_size": 14},
        ),
        ATTENTION[:3],
    ),
    "gemma2, logits in a soft cap": (transformers.Gemma2Config(**GROUPED, final_logit_softcapping=0.2), ATTENTION),
    "bloom, without positions": (
        transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4),
        ("dense_h_to_4h", "dense_4h_to_h"),
    ),
    "gpt2, fused": (
        transformers.GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4),
        ("c_attn",),
    ),
    "gpt2, one layer's": (
        transformers.GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4),
        ("h.1.attn.c_proj",),
    ),
}


def made(config: transformers.PretrainedConfig, folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("config", "targets"), CASES.values(), ids=CASES)
def test_what_is_trained_is_what_peft_reads_back(
    rollouts: list[Rollout], make_config: Make, tmp_path: Path,
    config: transformers.PretrainedConfig, targets: tuple[str, ...],
) -> None:  # fmt: skip
    """The held-out likelihood that DPO's training logs last is that of the adapter on the disk, and not the base's."""
    model = made(config, tmp_path / "model")
    attention = "eager" if config.model_type == "bloom" else "sdpa"  # bloom knows no other
    settings = make_config("dpo", targets=targets, learning_rate=1e-2, probe_every=6, attention=attention)
    reference = reference_logprobs(model, rollouts, attention=attention, precision="float32")
    folders = {"out": tmp_path / "out", "work": tmp_path / "work"}
    summary = train(settings, model, rollouts, reference=reference, heldout=rollouts, **folders)
    saved = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    matched = {name.rpartition(".lora_")[0] for name in saved}
    assert matched and all(name.endswith(targets) and "vision" not in name for name in matched)
    read = PeftModel.from_pretrained(load(model, "float32", attention), str(tmp_path / "out" / "adapter"))
    right = [row for row, rollout in enumerate(rollouts) if rollout.right]
    tokens = sum(len(rollouts[row].completion_ids) for row in right)
    with torch.no_grad():
        logp, _ = completion_logps(read, [rollout.tokens for rollout in rollouts], 1024)
    assert summary["heldout_nll_right"] == pytest.approx(-logp[right].sum().item() / tokens, rel=1e-5)
    assert abs(summary["heldout_nll_right"] + sum(reference[row].sum() for row in right) / tokens) > 1e-3
    assert summary["heldout_kl"] > 1e-6


@pytest.mark.parametrize(
    ("targets", "line"),
    [
        (("q_proj",), "adapter target 'q_proj' matches no module of this model; it has: c_attn, c_fc, c_proj"),
        (("c_attn", "lm_head"), "adapter target 'lm_head' is the output head, which is not adapted here: leave it out"),
    ],
)
def test_targets_that_do_not_fit_are_named(
    rollouts: list[Rollout], make_config: Make, tmp_path: Path, targets: tuple[str, ...], line: str
) -> None:
    model = made(CASES["gpt2, fused"][0], tmp_path / "model")
    with pytest.raises(ValueError) as caught:
        train(make_config(targets=targets), model, rollouts, tmp_path / "out", work=tmp_path / "work")
    assert str(caught.value) == line


def test_a_group_of_one_and_single_token_rows_train(tiny_model: Path, make_config: Make, tmp_path: Path) -> None:
    """Each problem has one rollout of one token: every objective that reads single rows takes it."""
    rows = [Rollout([3], [4 + i], float(i % 2), i) for i in range(8)]
    reference = reference_logprobs(tiny_model, rows, precision="float32")
    for name, settings in (
        ("sft", {}), ("rft", {"duplicates": "drop"}), ("dft", {}), ("rift", {"form": "source"}),
        ("offline_grpo", {}), ("offline_grpo", {"form": "source"}),
    ):  # fmt: skip
        folder = tmp_path / f"{name}-{len(settings)}"
        summary = train(
            make_config(name, settings=settings), tiny_model, rows, folder / "out", reference=reference, work=folder
        )
        assert summary["b_norm"] > 0 or name == "offline_grpo"
    with pytest.raises(ValueError, match="dpo: no problem has both a right and a wrong rollout"):
        train(make_config("dpo"), tiny_model, rows, tmp_path / "out", reference=reference, work=tmp_path)
