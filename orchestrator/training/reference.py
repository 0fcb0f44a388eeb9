"""Log-probabilities of training rows under the base, computed once for all trainings that need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from execution.context import Context
from methods.data.view import view
from methods.training.logprobs import reference_logprobs
from orchestrator.rollouts.dataset import training_rollouts
from orchestrator.runtime.device import device
from orchestrator.steps.base import model_folder

FILE = "reference.safetensors"


def compute(context: Context) -> None:
    """Write ``reference.safetensors``: ``logp``, float32, nats, one per completion token, rows concatenated in the
    table's order, and ``lengths``, int64, the tokens per row.

    Rows that are not needed (with ``rows`` "pairs" those in no pair) have length 0.
    """
    rollouts = training_rollouts(context.inputs["rollouts"])
    config = context.config
    rows = set(range(len(rollouts)))
    if config["rows"] == "pairs":
        rows = {row for pair in view("dpo", rollouts, config["pair_rule"], config["pairs"]) for row in pair}
    context.progress(f"log-probabilities of {len(rows)} rows")
    values = reference_logprobs(
        model_folder(context.inputs["base"]),
        rollouts,
        rows=rows,
        precision=config["precision"],
        attention=config["attention"],
        batch_size=config["micro_batch"],
        head_chunk=config["head_chunk"],
        threads=config["threads"],
        device=device(),
    )
    lengths = torch.tensor([len(row) for row in values])
    save_file({"logp": torch.from_numpy(np.concatenate(values)), "lengths": lengths}, context.out / FILE)


def read_reference(folder: Path) -> list[np.ndarray]:
    """Each training row's log-probabilities, in the table's order."""
    held = load_file(folder / FILE)
    ends = np.cumsum(held["lengths"].numpy())
    return np.split(held["logp"].numpy(), ends[:-1])
