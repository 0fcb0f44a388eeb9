"""Evaluates held-out rollouts during training: likelihood under the adapter, and KL from the base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.logprobs import check_rows
from methods.training.lora import Adapter
from models.logprobs import completion_states, head_of, token_scores

BATCH = 8  # rows per forward pass: without gradients they fit wherever training's own passes do


def evaluate_heldout(
    config: TrainConfig, adapter: Adapter, step: int, heldout: Sequence[Rollout]
) -> dict[str, float | None]:
    """:func:`probe` after ``step`` where the config's ``probe_every`` or ``reported_step`` asks for it; else empty.

    The first part of a longer training (``keep_state``) is not looked at where it ends: the longer one would not be.
    """
    ends = step == config.reported_step and not config.keep_state
    if not heldout or (step % config.probe_every and not ends):
        return {}
    return probe(adapter.model, heldout, config.head_chunk)


def heldout_rows(
    config: TrainConfig, model: PreTrainedModel | PeftModel, heldout: Sequence[Rollout]
) -> Sequence[Rollout]:
    """The held-out rows that the config evaluates; ``ValueError`` if one is empty or the model cannot process it."""
    rows = heldout[: config.probe_rows] if config.probe_every else ()
    for row, rollout in enumerate(rows):
        if not len(rollout.prompt_ids) or not len(rollout.completion_ids):
            raise ValueError(f"held-out row {row}: prompt and completion need at least one token each")
    try:
        check_rows(model, rows, range(len(rows)))
    except ValueError as error:
        raise ValueError(f"held-out {error}") from None
    return rows


@torch.no_grad()
def probe(model: PeftModel, rollouts: Sequence[Rollout], head_chunk: int) -> dict[str, float | None]:
    """``heldout_nll_right``, ``heldout_nll_wrong`` and ``heldout_kl``, nats per completion token.

    The first two are means over the tokens of right and of wrong rows (None without such rows). KL is the exact
    KL(base || adapted) over the vocabulary at each position, averaged over all tokens; the base is the same model with
    its adapter disabled. Runs in eval mode and draws no random numbers.
    """
    with evaluating(model):
        return _evaluated(model, rollouts, head_chunk)


@contextmanager
def evaluating(model: PeftModel) -> Iterator[None]:
    """Eval mode for all modules; their modes are restored afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _evaluated(model: PeftModel, rollouts: Sequence[Rollout], head_chunk: int) -> dict[str, float | None]:
    sums = {True: [0.0, 0], False: [0.0, 0]}  # nll and tokens of right and of wrong rows
    total = 0.0
    for first in range(0, len(rollouts), BATCH):
        part = rollouts[first : first + BATCH]
        rows = [rollout.tokens for rollout in part]
        states, targets, mask = completion_states(model, rows)
        with model.disable_adapter():
            before, _, _ = completion_states(model, rows)
        scores = token_scores(head_of(model), states, targets, head_chunk, before)
        nll, kl = (torch.cat(values) for values in zip(*scores, strict=True))
        total += kl.sum().item()
        for rollout, value in zip(part, nll.new_zeros(mask.shape).masked_scatter(mask, nll).sum(dim=1), strict=True):
            held = sums[rollout.right]
            held[0] += value.item()
            held[1] += len(rollout.completion_ids)
    tokens = sum(count for _, count in sums.values())
    right, wrong = (sums[kind][0] / sums[kind][1] if sums[kind][1] else None for kind in (True, False))
    return {"heldout_nll_right": right, "heldout_nll_wrong": wrong, "heldout_kl": max(0.0, total) / tokens}
