"""Log-probabilities of completions, and KL to another model, without holding the logits of every position.

Dimension letters: n rows, l tokens a row (prompt and completion, padded on the right), t completion tokens, p
all completion tokens of the batch, d hidden size, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from models import head
from models.head import Head, backbone
from models.padding import padded

Row = tuple[Sequence[int], Sequence[int]]  # (prompt ids, completion ids), of one token each or more

# Up to this many logits (64 MiB in float32) recomputing the head costs more than it saves.
WHOLE_HEAD = 2**24


def completion_logps(model: PreTrainedModel | PeftModel, rows: Sequence[Row], head_chunk: int) -> tuple[Tensor, Tensor]:
    """``(logp, mask)``, both n x t: log pi(y_t | x, y_<t) of each completion in nats, 0 where the mask is
    False. The head runs on ``head_chunk`` positions at a time where all logits would be too many.
    """
    hidden_pd, targets_p, mask_nt = completion_states(model, rows)
    logp_p = token_logps(head_of(model), hidden_pd, targets_p, head_chunk)
    logp_nt = logp_p.new_zeros(mask_nt.shape).masked_scatter(mask_nt, logp_p)
    return logp_nt, mask_nt


def completion_states(model: PreTrainedModel | PeftModel, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Final hidden states that predict the completion tokens, p x d; those tokens, p; the mask, n x t."""
    base = inner(model)
    ids = padded([[*prompt, *completion] for prompt, completion in rows])
    at, mask = predicting(rows, ids.shape[1])
    targets = ids.reshape(-1)[at + 1]
    ids_nl, at_p, targets_p, mask_nt = (torch.from_numpy(x).to(base.device) for x in (ids, at, targets, mask))
    hidden_nld = backbone(base)(input_ids=ids_nl, use_cache=False).last_hidden_state
    return hidden_nld.flatten(0, 1).index_select(0, at_p), targets_p, mask_nt


def predicting(rows: Sequence[Row], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices into the flattened n x ``width`` tokens of the positions that predict a completion token, p; the mask,
    n x t."""
    starts, sizes = (np.array([len(row[part]) for row in rows]) for part in (0, 1))
    mask = np.arange(int(sizes.max()))[None, :] < sizes[:, None]
    row, step = mask.nonzero()
    return row * width + starts[row] + step - 1, mask


def token_logps(head: Head, hidden_pd: Tensor, targets_p: Tensor, chunk: int) -> Tensor:
    """Log-probability of each target, p, nats; in chunks that are recomputed in backward if the logits are too many."""
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


def token_scores(
    head: Head, hidden_pd: Tensor, targets_p: Tensor, chunk: int, before_pd: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, for ``chunk`` positions at a time, -log pi(target) and the exact KL(before || now) over the vocabulary;
    nats, float64. Only one chunk's logits are held.

    ``before_pd``: hidden states of another model with the same head at the same positions; without them KL is 0. KL of
    nearly equal distributions can be slightly negative by rounding.
    """
    for first in range(0, len(targets_p), chunk):
        piece = slice(first, first + chunk)
        logp = head(hidden_pd[piece]).log_softmax(dim=-1)
        nll = -logp.gather(1, targets_p[piece, None])[:, 0].double()
        if before_pd is None:
            yield nll, torch.zeros_like(nll)
            continue
        base = head(before_pd[piece]).log_softmax(dim=-1)
        yield nll, (base.exp() * (base - logp)).sum(dim=-1).double()


def head_of(model: PreTrainedModel | PeftModel) -> Head:
    """The model's output head; see :func:`models.head.head_of`."""
    return head.head_of(inner(model))


def inner(model: PreTrainedModel | PeftModel) -> Any:
    """The model without its PEFT wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
