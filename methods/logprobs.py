"""Log-probabilities of completions without the logits of every position.

Dimension letters: n rows, l tokens a row (prompt and completion, padded on the right), t completion tokens, p
all completion tokens of the batch, d hidden size, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from methods.batch import Rollout
from methods.determinism import deterministic, in_order
from models import head
from models.base import load, positions, vocabulary
from models.head import Head, backbone

# Up to so many logits (64 MiB in float32) recomputing the head costs more than it saves.
WHOLE_HEAD = 2**24


def check_rows(model: PreTrainedModel | PeftModel, rollouts: Sequence[Rollout], rows: Iterable[int]) -> None:
    """``ValueError`` naming the first row with an unknown token or more tokens than the model takes."""
    known, longest = vocabulary(_inner(model)), positions(model.config)
    for row in rows:
        rollout = rollouts[row]
        length = len(rollout.prompt_ids) + len(rollout.completion_ids)
        if longest is not None and length > longest:
            raise ValueError(f"row {row}: {length} tokens, the model takes {longest}")
        for ids in (rollout.prompt_ids, rollout.completion_ids):
            if min(ids) < 0 or max(ids) >= known:
                raise ValueError(f"row {row}: a token id lies outside the model's vocabulary of {known}")


def check_logits(model: PreTrainedModel, rollout: Rollout) -> None:
    """``ValueError`` with both numbers where what :func:`completion_logps` reads off the row is not the model's own."""
    in_order(partial(head.check, model, [*rollout.prompt_ids, *rollout.completion_ids]))


def completion_logps(
    model: PreTrainedModel | PeftModel, rollouts: Sequence[Rollout], head_chunk: int
) -> tuple[Tensor, Tensor]:
    """``(logp, mask)``, both n x t: log pi(y_t | x, y_<t) of each completion, 0 where the mask is
    False.

    Rows are padded on the right, and attention is causal: no real token sees padding, so no attention mask is
    passed.
    """
    hidden_pd, targets_p, mask_nt = completion_states(model, rollouts)
    logp_p = _chunked(head_of(model), hidden_pd, targets_p, head_chunk)
    logp_nt = logp_p.new_zeros(mask_nt.shape).masked_scatter(mask_nt, logp_p)
    return logp_nt, mask_nt


def completion_states(model: PreTrainedModel | PeftModel, rollouts: Sequence[Rollout]) -> tuple[Tensor, Tensor, Tensor]:
    """Final hidden states from which completion tokens are predicted, p x d; those tokens, p; the mask, n x t."""
    base = _inner(model)
    ids, at, targets, mask = _arrays(rollouts)
    ids_nl, at_p, targets_p, mask_nt = (torch.from_numpy(x).to(base.device) for x in (ids, at, targets, mask))
    hidden_nld = backbone(base)(input_ids=ids_nl, use_cache=False).last_hidden_state
    return hidden_nld.flatten(0, 1).index_select(0, at_p), targets_p, mask_nt


def padded(rows: Sequence[np.ndarray], mask: Tensor) -> Tensor:
    """Ragged rows as one n x t float32 tensor beside ``mask``, zero off it."""
    flat = torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(mask.device)
    return flat.new_zeros(mask.shape).masked_scatter(mask, flat)


def head_of(model: PreTrainedModel | PeftModel) -> Head:
    """From hidden states to logits."""
    return head.head_of(_inner(model))


def _inner(model: PreTrainedModel | PeftModel) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _arrays(rollouts: Sequence[Rollout]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Padded ids n x l; flat positions that predict a completion token, p; those tokens, p; mask n x t."""
    starts = np.array([len(r.prompt_ids) for r in rollouts])
    sizes = np.array([len(r.completion_ids) for r in rollouts])
    width = int((starts + sizes).max())
    # Any id serves as padding: nothing reads what comes after a row's last token.
    ids = np.zeros((len(rollouts), width), dtype=np.int64)
    for i, rollout in enumerate(rollouts):
        ids[i, : starts[i]] = rollout.prompt_ids
        ids[i, starts[i] : starts[i] + sizes[i]] = rollout.completion_ids
    mask = np.arange(int(sizes.max()))[None, :] < sizes[:, None]
    row, step = mask.nonzero()
    at = row * width + starts[row] + step - 1
    return ids, at, ids.reshape(-1)[at + 1], mask


def _chunked(head: Head, hidden_pd: Tensor, targets_p: Tensor, chunk: int) -> Tensor:
    """Log-probability of each target, p; chunked and recomputed in backward where logits are too many."""
    positions = len(targets_p)
    if positions * head.linear.weight.shape[0] <= WHOLE_HEAD or positions <= chunk:
        return _logps(head, hidden_pd, targets_p)
    parts = []
    for first in range(0, positions, chunk):
        piece, wanted = hidden_pd[first : first + chunk], targets_p[first : first + chunk]
        parts.append(checkpoint(_logps, head, piece, wanted, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts)


def _logps(head: Head, hidden_pd: Tensor, targets_p: Tensor) -> Tensor:
    return -F.cross_entropy(head(hidden_pd), targets_p, reduction="none")


@torch.no_grad()
def reference_logprobs(
    model_dir: Path,
    rollouts: Sequence[Rollout],
    *,
    rows: Iterable[int] | None = None,
    precision: str = "float32",
    attention: str = "sdpa",
    batch_size: int = 32,
    head_chunk: int = 1024,
    threads: int = 1,
    device: str = "cpu",
) -> list[np.ndarray]:
    """log pi_base(y_t | x, y_<t) of each completion's tokens, float32, nats; of no token for rows not asked for.

    ``rows`` None means all. Rows of like length share a batch.
    """
    wanted = sorted(range(len(rollouts)) if rows is None else set(rows))
    with deterministic(threads, device):
        model = load(model_dir, precision, attention, device)
        check_rows(model, rollouts, wanted)
        for row in wanted[:1]:
            check_logits(model, rollouts[row])
        wanted.sort(key=lambda row: len(rollouts[row].prompt_ids) + len(rollouts[row].completion_ids))
        values = [np.empty(0, dtype=np.float32)] * len(rollouts)
        for first in range(0, len(wanted), batch_size):
            part = wanted[first : first + batch_size]
            logp, _ = in_order(partial(completion_logps, model, [rollouts[row] for row in part], head_chunk))
            for row, line in zip(part, logp.float().cpu().numpy(), strict=True):
                values[row] = line[: len(rollouts[row].completion_ids)].copy()
    return values
