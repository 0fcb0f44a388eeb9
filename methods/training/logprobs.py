"""Log-probabilities of rollouts under the base, and checks that the model can process the rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from methods.config import TrainingSettings
from methods.data.batch import Rollout
from methods.training.determinism import deterministic, in_order
from models import head
from models.base import load, positions, vocabulary
from models.logprobs import completion_logps, inner
from models.padding import by_length


def check_rows(model: PreTrainedModel | PeftModel, rollouts: Sequence[Rollout], rows: Iterable[int]) -> None:
    """``ValueError`` names the first row with an unknown token or more tokens than the model takes."""
    known, longest = vocabulary(inner(model)), positions(model.config)
    for row in rows:
        rollout = rollouts[row]
        length = len(rollout.prompt_ids) + len(rollout.completion_ids)
        if longest is not None and length > longest:
            raise ValueError(f"row {row}: {length} tokens, the model takes {longest}")
        for ids in rollout.tokens:
            if min(ids) < 0 or max(ids) >= known:
                raise ValueError(f"row {row}: a token id lies outside the model's vocabulary of {known}")


def check_logits(model: PreTrainedModel, rollout: Rollout) -> None:
    """``ValueError`` if log-probabilities from hidden states differ from the model's own; see :func:`head.check`."""
    in_order(partial(head.check, model, [*rollout.prompt_ids, *rollout.completion_ids]))


def beside(rows: Sequence[np.ndarray], mask: Tensor) -> Tensor:
    """Ragged rows as one n x t float32 tensor of the shape of ``mask``, zero outside it."""
    flat = torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(mask.device)
    return flat.new_zeros(mask.shape).masked_scatter(mask, flat)


@torch.no_grad()
def reference_logprobs(
    model_dir: Path,
    rollouts: Sequence[Rollout],
    *,
    rows: Iterable[int] | None = None,
    precision: str,
    attention: str = TrainingSettings.attention,
    batch_size: int = TrainingSettings.micro_batch,
    head_chunk: int = TrainingSettings.head_chunk,
    threads: int = TrainingSettings.threads,
    device: str = "cpu",
) -> list[np.ndarray]:
    """log pi_base(y_t | x, y_<t) of each completion's tokens, float32, nats; empty for rows not in ``rows``.

    ``rows`` None means all. Rows of similar length share a batch.
    """
    wanted = sorted(range(len(rollouts)) if rows is None else set(rows))
    with deterministic(threads, device):
        model = load(model_dir, precision, attention, device)
        check_rows(model, rollouts, wanted)
        for row in wanted[:1]:
            check_logits(model, rollouts[row])
        lengths = [sum(map(len, rollouts[row].tokens)) for row in wanted]
        values = [np.empty(0, dtype=np.float32)] * len(rollouts)
        for batch in by_length(lengths, batch_size):
            part = [wanted[place] for place in batch]
            tokens = [rollouts[row].tokens for row in part]
            logp, _ = in_order(partial(completion_logps, model, tokens, head_chunk))
            for row, line in zip(part, logp.float().cpu().numpy(), strict=True):
                values[row] = line[: len(rollouts[row].completion_ids)].copy()
    return values
