"""Log-probabilities of completions in batches and in chunks, against each row's own logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from pytest import MonkeyPatch

from models import logprobs
from models.base import load
from models.head import head_of
from models.logprobs import Row, completion_logps, completion_states, token_scores
from models.padding import by_length, padded


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Rows of unlike length over the tiny model's words."""
    rng = np.random.default_rng(3)
    sizes = rng.integers((3, 2), (8, 9), (9, 2)).tolist()
    return [
        (rng.integers(2, 64, prompt).tolist(), [*rng.integers(2, 64, answer).tolist(), 1]) for prompt, answer in sizes
    ]


def plainly(model: transformers.PreTrainedModel, row: Row) -> torch.Tensor:
    """t x v log-probabilities that predict the completion, from the whole model's own logits, in float64."""
    prompt, completion = row
    logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits.double()
    return logits.log_softmax(-1)[0, len(prompt) - 1 : -1]


def chosen(logp: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    return logp.gather(1, torch.tensor(tokens)[:, None])[:, 0]


def test_equals_whole_logits_row_by_row(tiny_model: Path, rows: list[Row]) -> None:
    """Padding and prompt do not count: rows of unlike length in one batch give what each gives alone."""
    model = load(tiny_model, "float32", "sdpa")
    with torch.no_grad():
        logp, mask = completion_logps(model, rows, 1024)
        for i, row in enumerate(rows):
            assert mask[i].sum() == len(row[1])
            assert torch.allclose(logp[i, mask[i]].double(), chosen(plainly(model, row), row[1]), atol=1e-5)
            assert not logp[i, ~mask[i]].any()


def test_other_architectures(rows: list[Row]) -> None:
    """Llama (untied head) and GPT-2 (a backbone of another name), against their own logits."""
    llama = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    gpt2 = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    for model in (transformers.LlamaForCausalLM(llama), transformers.GPT2LMHeadModel(gpt2)):
        with torch.no_grad():
            logp, mask = completion_logps(model.eval(), rows[:5], 1024)
            for i, row in enumerate(rows[:5]):
                assert torch.allclose(logp[i, mask[i]].double(), chosen(plainly(model, row), row[1]), atol=1e-5)


def test_eager_equals_sdpa(tiny_model: Path, rows: list[Row]) -> None:
    """Without an attention mask both are causal."""
    models = [load(tiny_model, "float32", attention) for attention in ("sdpa", "eager")]
    with torch.no_grad():
        both = [completion_logps(model, rows, 64)[0] for model in models]
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
        values.append(logprobs.token_logps(head, hidden, targets, 7))
        gradients.append(torch.autograd.grad((weight * values[-1]).sum(), hidden)[0])
    assert sizes[0] == 50 and sorted(sizes[1:]) == [1] * 2 + [7] * 14
    assert torch.allclose(*values, rtol=1e-6, atol=1e-6)
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [3, 1024])
def test_nll_and_kl_of_every_position(tiny_model: Path, served_model: Path, rows: list[Row], chunk: int) -> None:
    """Against both models' own logits; the other model's states have to come from a model with the same head."""
    model, other = load(tiny_model, "float32"), load(served_model, "float32")
    other.set_output_embeddings(model.get_output_embeddings())
    with torch.no_grad():
        states, targets, _ = completion_states(model, rows)
        before, _, _ = completion_states(other, rows)
        parts = list(token_scores(head_of(model), states, targets, chunk, before))
        nll, kl = (torch.cat(values) for values in zip(*parts, strict=True))
        now, then = (torch.cat([plainly(held, row) for row in rows]) for held in (model, other))
        alone = [part for part, zero in token_scores(head_of(model), states, targets, chunk) if not zero.any()]
    assert len(parts) == len(alone) == -(-len(targets) // chunk)
    assert torch.equal(torch.cat(alone), nll)
    assert torch.allclose(nll, -chosen(now, targets.tolist()), atol=1e-5)
    assert torch.allclose(kl, (then.exp() * (then - now)).sum(-1), atol=1e-5) and kl.min() > 0.01


def test_rows_of_like_length_share_a_batch() -> None:
    assert list(by_length([5, 2, 9, 2, 7], 2)) == [[1, 3], [0, 4], [2]]
    assert padded([[4, 5], [6], []]).tolist() == [[4, 5], [6, 0], [0, 0]]
