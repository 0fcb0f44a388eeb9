from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from pytest import MonkeyPatch

from methods import logprobs
from methods.batch import Rollout
from methods.logprobs import completion_logps, reference_logprobs
from models.base import load
from models.head import head_of


def plainly(model: transformers.PreTrainedModel, rollout: Rollout) -> torch.Tensor:
    """Row by row, from the whole model's own logits, in float64."""
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
    logp = model(input_ids=ids).logits.double().log_softmax(-1)[0, :-1]
    return logp.gather(1, ids[0, 1:, None])[len(rollout.prompt_ids) - 1 :, 0]


def test_equals_whole_logits_row_by_row(tiny_model: Path, rollouts: list[Rollout]) -> None:
    """Padding and prompt do not count: rows of unlike length in one batch give what each gives alone."""
    model = load(tiny_model, "float32", "sdpa")
    with torch.no_grad():
        logp, mask = completion_logps(model, rollouts[:9], 1024)
        for i, rollout in enumerate(rollouts[:9]):
            assert mask[i].sum() == len(rollout.completion_ids)
            assert torch.allclose(logp[i, mask[i]].double(), plainly(model, rollout), atol=1e-5)
            assert not logp[i, ~mask[i]].any()


def test_other_architectures(rollouts: list[Rollout]) -> None:
    """Llama (untied head) and GPT-2 (a backbone of another name), against their own logits."""
    llama = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    gpt2 = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    for model in (transformers.LlamaForCausalLM(llama), transformers.GPT2LMHeadModel(gpt2)):
        with torch.no_grad():
            logp, mask = completion_logps(model.eval(), rollouts[:5], 1024)
            for i, rollout in enumerate(rollouts[:5]):
                assert torch.allclose(logp[i, mask[i]].double(), plainly(model, rollout), atol=1e-5)


def test_eager_equals_sdpa(tiny_model: Path, rollouts: list[Rollout]) -> None:
    """Without an attention mask both are causal."""
    models = [load(tiny_model, "float32", attention) for attention in ("sdpa", "eager")]
    with torch.no_grad():
        both = [completion_logps(model, rollouts, 64)[0] for model in models]
    assert torch.allclose(*both, atol=1e-5)


def test_chunked_head_equals_whole(tiny_model: Path, monkeypatch: MonkeyPatch) -> None:
    """Values and gradients, chunks of 7 of 50 positions against all at once; chunks are made twice."""
    head = head_of(load(tiny_model, "float32", "sdpa"))
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn((50, 64), generator=generator, requires_grad=True)
    targets = torch.randint(0, 64, (50,), generator=generator)
    weight = torch.randn(50, generator=generator)
    sizes: list[int] = []
    plain = logprobs._logps
    monkeypatch.setattr(logprobs, "_logps", lambda h, x, y: sizes.append(len(x)) or plain(h, x, y))
    values, gradients = [], []
    for limit in (logprobs.WHOLE_HEAD, 0):
        monkeypatch.setattr(logprobs, "WHOLE_HEAD", limit)
        values.append(logprobs._chunked(head, hidden, targets, 7))
        gradients.append(torch.autograd.grad((weight * values[-1]).sum(), hidden)[0])
    assert sizes[0] == 50 and sorted(sizes[1:]) == [1] * 2 + [7] * 14
    assert torch.allclose(*values, rtol=1e-6, atol=1e-6)
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-6)


def test_reference(tiny_model: Path, rollouts: list[Rollout]) -> None:
    """The plain log-probabilities of the rows asked for, nothing for the others."""
    values = reference_logprobs(tiny_model, rollouts, rows=[5, 2, 40], batch_size=2)
    model = load(tiny_model, "float32", "sdpa")
    with torch.no_grad():
        for row in (2, 5, 40):
            assert values[row] == pytest.approx(plainly(model, rollouts[row]).numpy(), abs=1e-5)
    assert [row for row, value in enumerate(values) if len(value)] == [2, 5, 40]
    together = reference_logprobs(tiny_model, rollouts)
    for row in (2, 5, 40):
        assert values[row] == pytest.approx(together[row], abs=1e-5)


@pytest.mark.parametrize(
    ("rollout", "line"),
    [
        (Rollout([3], [64], 1.0, 0), "row 0: a token id lies outside the model's vocabulary of 64"),
        (Rollout([3] * 200, [4] * 57, 1.0, 0), "row 0: 257 tokens, the model takes 256"),
    ],
)
def test_rows_the_model_cannot_take(tiny_model: Path, rollout: Rollout, line: str) -> None:
    with pytest.raises(ValueError) as caught:
        reference_logprobs(tiny_model, [rollout])
    assert str(caught.value) == line
