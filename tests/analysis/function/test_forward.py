"""Attached deltas against PEFT's own model, features, nll and KL against plain forwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Generator, Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from analysis.function import forward
from analysis.function.forward import attached, completion_hidden, completion_nll, completion_scores, features
from models.adapter import Factors, load_factors

PROMPTS = [[5, 9, 3], [7, 8, 30, 12, 40, 3], [11, 3]]
ROWS = [([5, 9, 3], [20, 21, 1]), ([7, 8, 30, 12, 3], [1]), ([11, 3], []), ([4, 3], [50, 51, 52, 53, 1])]
QUERY = "model.layers.1.self_attn.q_proj"


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> PreTrainedModel:
    return load(tiny_model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, write_adapter: Callable[..., Path]) -> Path:
    return write_adapter(tmp_path_factory.mktemp("forward") / "adapter", tiny_model, seed=3)


@pytest.fixture(scope="module")
def delta(folder: Path) -> dict[str, Factors]:
    return load_factors(folder)


def logits(model: torch.nn.Module, ids: list[int]) -> Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def test_attached_equals_peft(model: PreTrainedModel, folder: Path, delta: dict, tiny_model: Path) -> None:
    wrapped = PeftModel.from_pretrained(load(tiny_model), folder).eval()
    plain = logits(model, PROMPTS[1])
    with attached(model, delta):
        found = logits(model, PROMPTS[1])
    torch.testing.assert_close(found, logits(wrapped, PROMPTS[1]), rtol=1e-4, atol=1e-5)
    assert (found - plain).abs().max() > 0.01
    assert torch.equal(logits(model, PROMPTS[1]), plain)


def test_attached_to_llama_equals_the_merged_weights() -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        llama = LlamaForCausalLM(config).float().eval()
    generator = Generator().manual_seed(1)
    name = "model.layers.0.mlp.down_proj"
    delta = Factors(torch.randn(24, 2, generator=generator), torch.randn(2, 32, generator=generator))
    with attached(llama, {name: delta}):
        found = logits(llama, [4, 5, 6])
    with torch.no_grad():
        llama.get_submodule(name).weight += delta.b @ delta.a
    torch.testing.assert_close(found, logits(llama, [4, 5, 6]), rtol=1e-4, atol=1e-5)


def test_attached_to_gpt2_equals_the_merged_weights() -> None:
    """Its Conv1D stores in x out; the name may lack the model's prefix."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"vocab_size": 32, "n_positions": 8, "n_embd": 12, "n_layer": 1, "n_head": 2}
        gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1)).float().eval()
    generator = Generator().manual_seed(1)
    delta = Factors(torch.randn(36, 2, generator=generator), torch.randn(2, 12, generator=generator))
    with attached(gpt2, {"h.0.attn.c_attn": delta}):
        found = logits(gpt2, [4, 5, 6])
    with torch.no_grad():
        gpt2.get_submodule("transformer.h.0.attn.c_attn").weight += (delta.b @ delta.a).T
    torch.testing.assert_close(found, logits(gpt2, [4, 5, 6]), rtol=1e-4, atol=1e-5)


def test_features_by_hand(model: PreTrainedModel, delta: dict) -> None:
    """Row by row without padding: Transformers' hidden states, and x W.T + x A.T B.T for a projection."""
    with attached(model, delta):
        last = features(model, PROMPTS, "last", [QUERY])
        mean = features(model, PROMPTS, "mean", [QUERY])
        for row, ids in enumerate(PROMPTS):
            with torch.inference_mode():
                states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            assert len(states) == len(last["hidden"]) == 3
            for layer, state in enumerate(states):
                torch.testing.assert_close(last["hidden"][layer][row], state[0, -1], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(mean["hidden"][layer][row], state[0].mean(0), rtol=1e-4, atol=1e-5)
            block = model.get_submodule("model.layers.1")
            inputs = block.input_layernorm(states[1][0]).detach()
            f = delta[QUERY]
            outputs = inputs @ block.self_attn.q_proj.weight.detach().T + inputs @ f.a.float().T @ f.b.float().T
            torch.testing.assert_close(last["modules"][QUERY][row], outputs[-1], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(mean["modules"][QUERY][row], outputs.mean(0), rtol=1e-4, atol=1e-5)
    embedded = model.get_input_embeddings().weight.detach()[[ids[-1] for ids in PROMPTS]]
    assert torch.equal(last["hidden"][0], embedded)


def test_features_repeat_to_the_bit_and_do_not_see_padding(model: PreTrainedModel) -> None:
    first, again = features(model, PROMPTS, "mean", [QUERY]), features(model, PROMPTS, "mean", [QUERY])
    single = features(model, PROMPTS, "mean", [QUERY], batch_size=1)
    for layer in range(3):
        assert torch.equal(first["hidden"][layer], again["hidden"][layer])
        torch.testing.assert_close(first["hidden"][layer], single["hidden"][layer], rtol=1e-4, atol=1e-5)
    assert not model.get_submodule(QUERY)._forward_hooks


@pytest.mark.parametrize("chunk", [2, 256])
def test_nll_and_kl_against_full_logits(
    model: PreTrainedModel, delta: dict, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "TOKENS_A_CHUNK", chunk)
    reference = completion_hidden(model, ROWS, batch_size=2)
    with attached(model, delta):
        scores = completion_scores(model, ROWS, batch_size=2, reference=reference)
    assert [score.tokens for score in scores] == [3, 1, 0, 5]
    assert (scores[2].nll, scores[2].kl) == (0, 0)
    for (prompt, completion), score in zip(ROWS, scores, strict=True):
        predicts = slice(len(prompt) - 1, len(prompt) + len(completion) - 1)
        base = torch.log_softmax(logits(model, prompt + completion)[predicts].double(), -1)
        with attached(model, delta):
            tuned = torch.log_softmax(logits(model, prompt + completion)[predicts].double(), -1)
        nll = -sum(float(tuned[t, token]) for t, token in enumerate(completion))
        assert score.nll == pytest.approx(nll, abs=1e-4)
        assert score.kl == pytest.approx(float((base.exp() * (base - tuned)).sum()), abs=1e-5)
    assert max(score.kl for score in scores) > 0.01


def test_the_base_is_at_no_distance_from_itself(model: PreTrainedModel) -> None:
    scores = completion_scores(model, ROWS, reference=completion_hidden(model, ROWS))
    assert max(score.kl for score in scores) < 1e-6
    assert completion_nll(model, ROWS) == [(score.nll, score.tokens) for score in scores]


def test_hooks_leave_even_when_something_fails(model: PreTrainedModel, delta: dict) -> None:
    plain = logits(model, PROMPTS[0])
    with pytest.raises(RuntimeError, match="inside"), attached(model, delta):
        raise RuntimeError("inside")
    broken = {**delta, "model.layers.7.self_attn.q_proj": delta[QUERY]}
    with (
        pytest.raises(ValueError, match=r"module model\.layers\.7.* is not in Qwen3ForCausalLM"),
        attached(model, broken),
    ):
        pass
    assert torch.equal(logits(model, PROMPTS[0]), plain)


def test_refusals(model: PreTrainedModel, delta: dict) -> None:
    def attach(name: str, factors: Factors) -> None:
        with attached(model, {name: factors}):
            pass

    with pytest.raises(ValueError, match=r"the delta is \(64, 3\), the weight \(64, 64\)"):
        attach(QUERY, Factors(torch.zeros(64, 2), torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="is a Qwen3RMSNorm"):
        attach("model.norm", delta[QUERY])
    with pytest.raises(ValueError, match="inner linear modules"):
        attach("lm_head", Factors(torch.zeros(64, 2), torch.zeros(2, 64)))
    with pytest.raises(ValueError, match="'last' or 'mean'"):
        features(model, PROMPTS, "first")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of them empty"):
        features(model, [[1], []])
    with pytest.raises(ValueError, match="row 0: the prompt is empty"):
        completion_nll(model, [([], [3])])
    with pytest.raises(ValueError, match="reference states of 1 rows for 4"):
        completion_scores(model, ROWS, reference=[torch.zeros(3, 64)])
    model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            completion_nll(model, ROWS)
    finally:
        model.eval()
