"""Logits from hidden states: the output head with the scale and soft cap of the model's config.

Used where logits are needed at some positions only, or in chunks; :func:`check` compares them with the model's own.
Letters: p positions, d hidden size, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

# Names in Transformers' configs of the factors, divisors and soft cap applied to the head's output.
TIMES = ("logit_scale", "lm_head_multiplier", "output_multiplier")
OVER = ("logits_scaling", "logits_mup_width_multiplier")
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
MULTIPLIES = ("hyperclovax",)  # model types that multiply by the names in OVER
ROW = 64  # tokens of a row that are compared
ROUNDINGS = 16.0  # tolerated mean difference of log-probabilities, in rounding errors of the largest logit
LARGEST = 0.1  # nats, upper limit of that tolerance: bfloat16 gives .05 on capped logits of 20


@dataclass(frozen=True)
class Head:
    """``logits = cap * tanh(scale * linear(hidden) / cap)``; without a cap, ``scale * linear(hidden)``."""

    linear: Any
    scale: float = 1.0
    cap: float | None = None

    def __call__(self, hidden_pd: Tensor) -> Tensor:
        """Logits, p x v, in float32 or wider; scale and cap are applied in that precision."""
        logits: Tensor = self.linear(hidden_pd)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def head_of(model: PreTrainedModel) -> Head:
    """The model's output head with its config's scale and soft cap; ``ValueError`` if the model has no head."""
    linear = model.get_output_embeddings()
    if linear is None:
        raise ValueError(f"model: {type(model).__name__} has no output head: take a causal language model")
    config = model.config.get_text_config()
    scale = 1.0
    for name in TIMES:
        scale *= _value(config, name) or 1.0
    for name in OVER:
        factor = _value(config, name) or 1.0
        scale = scale * factor if config.model_type in MULTIPLIES else scale / factor
    return Head(linear, scale, next((cap for name in CAPS if (cap := _value(config, name))), None))


def _value(config: PreTrainedConfig, name: str) -> float | None:
    """A number of the config, field or property; None if absent."""
    value = getattr(config, name, None)
    return float(value) if isinstance(value, (int, float)) else None


def backbone(model: PreTrainedModel) -> nn.Module:
    """The part of the model that computes hidden states; ``ValueError`` if there is none."""
    base = model.base_model
    inner = base if base is not model else getattr(model, "model", None)
    if inner is None:
        raise ValueError(f"model: {type(model).__name__} has no part that gives hidden states: take another base")
    return inner


@torch.no_grad()
def check(model: PreTrainedModel, token_ids: Sequence[int]) -> None:
    """``ValueError`` with both numbers if ``head_of(model)`` on the hidden states differs from the model's own logits.

    Compares the log-probabilities of the first :data:`ROW` tokens of one row. ``ValueError`` too if a token's logits
    depend on later tokens: the model is not causal.
    """
    name = type(model).__name__
    ids = torch.tensor([list(token_ids[:ROW])], device=model.device)
    own = _logits(model(input_ids=ids, use_cache=False).logits)
    head, hidden = head_of(model), backbone(model)(input_ids=ids, use_cache=False).last_hidden_state
    if hidden.shape[-1] != head.linear.weight.shape[-1] or own.shape[-1] != head.linear.weight.shape[0]:
        raise ValueError(
            f"model: {name} has {own.shape[-1]} logits from {hidden.shape[-1]} hidden units, its output head is "
            f"{tuple(head.linear.weight.shape)}: it makes logits in a way that is not supported here"
        )
    precision = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)  # norms are float32 in float64 too
    limit = min(LARGEST, ROUNDINGS * precision * own.abs().max().item())
    one, two = _nll(own, ids), _nll(_logits(head(hidden)), ids)
    if not _close(one, two, limit):
        raise ValueError(
            f"model: by {name}'s own logits a row has {one.mean():.4f} nats a token, by its hidden states times its "
            f"output head {two.mean():.4f} ({_gap(one, two):.2g} apart): it makes logits in a way that is not "
            "supported here"
        )
    half = ids.shape[1] // 2
    changed = ids.clone()
    changed[:, half:] = (changed[:, half:] + 1) % own.shape[-1]
    other = _logits(model(input_ids=changed, use_cache=False).logits)
    one, two = _nll(own[:half], ids), _nll(other[:half], ids)
    if not _close(one, two, limit):
        raise ValueError(
            f"model: {name} is not causal: a row's tokens have {one.mean():.4f} nats each, and {two.mean():.4f} when "
            "later ones are exchanged: take a causal language model"
        )


def _logits(logits: Tensor) -> Tensor:
    """l x v of the single row, in float32 or wider."""
    return logits[0].to(torch.promote_types(logits.dtype, torch.float32))


def _nll(logits_lv: Tensor, ids: Tensor) -> Tensor:
    """-log-probability of each position's next token, nats; the last position's next token is the row's first."""
    wanted = ids[0].roll(-1)[: len(logits_lv)]
    return -logits_lv.log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0].double()


def _gap(one: Tensor, two: Tensor) -> float:
    return (one - two).abs().mean().item() if len(one) else 0.0


def _close(one: Tensor, two: Tensor, limit: float) -> bool:
    """Whether the mean difference is within ``limit``. NaN passes: it is reported elsewhere as what it is."""
    return not _gap(one, two) > limit
