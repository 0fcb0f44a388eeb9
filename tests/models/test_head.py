"""The logits that are made here from hidden states are the model's own, or the model is refused with both numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from models.head import backbone, check, head_of

ROW = [3, 9, 17, 22, 5, 40, 41, 8, 33, 12]
SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}


def made(config: PreTrainedConfig) -> PreTrainedModel:
    """The config's causal model with weights so large that its logits reach into a soft cap."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.data.normal_(std=0.4)
    return model.requires_grad_(False)


FOLLOWED = {
    "Qwen 3": (transformers.Qwen3Config(**GROUPED), 1.0, None),
    "Granite divides": (transformers.GraniteConfig(**GROUPED, logits_scaling=8.0), 1 / 8, None),
    "HyperCLOVA X multiplies by the same name": (
        transformers.HyperCLOVAXConfig(**GROUPED, logits_scaling=0.25), 0.25, None,
    ),
    "MiniCPM 3 divides by a property": (
        transformers.MiniCPM3Config(**SMALL, **LATENT, num_key_value_heads=4, dim_model_base=8), 1 / 4, None,
    ),
    "Cohere multiplies": (transformers.CohereConfig(**SMALL, logit_scale=0.125), 1 / 8, None),
    "Gemma 2 caps": (transformers.Gemma2Config(**GROUPED, final_logit_softcapping=5.0), 1.0, 5.0),
    "RecurrentGemma caps by another name": (
        transformers.RecurrentGemmaConfig(**SMALL, num_key_value_heads=1, lru_width=32, logits_soft_cap=5.0), 1.0, 5.0,
    ),
    "Bloom has no positions": (
        transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4), 1.0, None,
    ),
    "Llama 4's backbone has another name than its class says": (
        transformers.Llama4TextConfig(**GROUPED, intermediate_size_mlp=48, num_local_experts=2, num_experts_per_tok=1),
        1.0, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "scale", "cap"), FOLLOWED.values(), ids=FOLLOWED)
def test_the_models_own_logits_are_followed(config: PreTrainedConfig, scale: float, cap: float | None) -> None:
    model = made(config)
    ids = torch.tensor([ROW])
    own = model(input_ids=ids).logits[0]
    head = head_of(model)
    found = head(backbone(model)(input_ids=ids).last_hidden_state[0])
    assert (head.scale, head.cap) == (pytest.approx(scale), cap)
    torch.testing.assert_close(found, own, rtol=1e-5, atol=1e-5)
    if (scale, cap) != (1.0, None):  # and it matters
        plain = model.get_output_embeddings()(backbone(model)(input_ids=ids).last_hidden_state[0])
        assert (plain.log_softmax(-1) - own.log_softmax(-1)).abs().max() > 0.3
    check(model, ROW)


REFUSED = {
    "ModernBERT's decoder": (transformers.ModernBertDecoderConfig(**SMALL), "it makes logits in a way that is not"),
    "BERT as a decoder": (transformers.BertConfig(**SMALL, is_decoder=True), "it makes logits in a way that is not"),
    "RoBERTa as a decoder": (
        transformers.RobertaConfig(**SMALL, is_decoder=True), "it makes logits in a way that is not",
    ),
    "RemBERT's head reads another width": (
        transformers.RemBertConfig(**SMALL, is_decoder=True, output_embedding_size=48),
        r"64 logits from 32 hidden units, its output head is \(64, 48\)",
    ),
    "BERT that looks ahead": (transformers.BertGenerationConfig(**SMALL), "is not causal: a row's tokens"),
    "XLNet": (transformers.XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=4, d_inner=48), "is not causal"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused_in_one_line(config: PreTrainedConfig, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        check(made(config), ROW)
    assert "\n" not in str(caught.value)


def test_the_refusal_names_both_numbers() -> None:
    """A scale that no config names: nll of the row by both ways, computed here once more."""
    model = made(transformers.Qwen3Config(**GROUPED))
    own = model.forward
    model.forward = lambda *args, **kwargs: _halved(own(*args, **kwargs))  # type: ignore[method-assign]
    logits = own(input_ids=torch.tensor([ROW])).logits[0]
    wanted = torch.tensor([*ROW[1:], ROW[0]])[:, None]
    one, two = (-(x * logits).log_softmax(-1).gather(1, wanted).mean().item() for x in (0.5, 1.0))
    with pytest.raises(ValueError) as caught:
        check(model, ROW)
    assert f"has {one:.4f} nats a token, by its hidden states times its output head {two:.4f} (" in str(caught.value)


def _halved(out: Any) -> Any:
    out.logits = out.logits / 2
    return out


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_other_precisions(precision: torch.dtype) -> None:
    """Rounding is let pass and a wrong scale is not, in bfloat16 too, and where all logits are small."""
    check(made(FOLLOWED["Gemma 2 caps"][0]).to(precision), ROW)
    torch.manual_seed(0)
    small: Any = transformers.AutoModelForCausalLM.from_config(REFUSED["ModernBERT's decoder"][0]).to(precision)
    with pytest.raises(ValueError, match="nats a token"):
        check(small.eval(), ROW)


def test_a_row_of_one_token_is_enough() -> None:
    check(made(transformers.Qwen3Config(**GROUPED)), [3])
