"""Logits from hidden states: what a model does behind its backbone, known from its config and held to its own logits.

Letters: p positions, d hidden size, v vocabulary. Whoever needs the logits of some positions only, or in chunks, makes
them here; :func:`check` says whether they are those that the model makes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

# What Transformers' configs call the factors and the soft cap between the head's product and the logits.
TIMES = ("logit_scale", "lm_head_multiplier", "output_multiplier")
OVER = ("logits_scaling", "logits_mup_width_multiplier")
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
MULTIPLIES = ("hyperclovax",)  # model types that multiply by what others divide by
ROW = 64  # tokens of a row that are enough to hold two ways beside each other
ROUNDINGS = 16.0  # of the largest logit: the mean difference of log-probabilities that the precision may leave
LARGEST = 0.1  # nats of it, whatever the precision: bfloat16 leaves .05 of capped logits of 20


@dataclass(frozen=True)
class Head:
    """``logits = cap * tanh(scale * linear(hidden) / cap)``, without a cap ``scale * linear(hidden)``."""

    linear: Any
    scale: float = 1.0
    cap: float | None = None

    def __call__(self, hidden_pd: Tensor) -> Tensor:
        """p x v, float32 at least; scaled and capped in that precision."""
        logits: Tensor = self.linear(hidden_pd)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def head_of(model: PreTrainedModel) -> Head:
    """The model's output head, with the factor and the soft cap that its config names; ``ValueError`` without one."""
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
    """A number of the config, whether it is a field or a property of it."""
    found = getattr(config, name, None)
    return float(found) if isinstance(found, (int, float)) else None


def backbone(model: PreTrainedModel) -> nn.Module:
    """The part of the model that makes the hidden states."""
    base = model.base_model
    inner = base if base is not model else getattr(model, "model", None)
    if inner is None:
        raise ValueError(f"model: {type(model).__name__} has no part that gives hidden states: take another base")
    return inner


@torch.no_grad()
def check(model: PreTrainedModel, token_ids: Sequence[int]) -> None:
    """``ValueError`` with both numbers where :class:`Head` on the backbone's hidden states is not the model's own way.

    Held beside each other on one row, of which the first :data:`ROW` tokens count: the log-probabilities of its tokens
    from the model's own logits and from ``head_of(model)``. A ``ValueError`` too where a token's logits change with
    the tokens behind it: such a model sees what it is to predict.
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


def _logits(found: Tensor) -> Tensor:
    """l x v of the one row, float32 at least."""
    return found[0].to(torch.promote_types(found.dtype, torch.float32))


def _nll(logits_lv: Tensor, ids: Tensor) -> Tensor:
    """-log-probability of the token behind each position, nats; of the row's first behind its last."""
    wanted = ids[0].roll(-1)[: len(logits_lv)]
    return -logits_lv.log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0].double()


def _gap(one: Tensor, two: Tensor) -> float:
    return (one - two).abs().mean().item() if len(one) else 0.0


def _close(one: Tensor, two: Tensor, limit: float) -> bool:
    """NaN is not close to anything, but a base that gives it fails elsewhere, by its own name."""
    return not _gap(one, two) > limit
