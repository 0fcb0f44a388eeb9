"""Log-probabilities of the training rows under the base, of pairs, once for all trainings that measure against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from methods.logprobs import reference_logprobs
from methods.view import view
from orchestrator.context import Context
from orchestrator.device import device
from orchestrator.steps.base import model_folder
from orchestrator.table import training_rollouts

FILE = "reference.npy"


def run(context: Context) -> None:
    """Writes ``reference.npy``: float64, one summed log-probability (nats) a training row, in the table's order.

    Only rows that stand in a pair are computed; the others are NaN.
    """
    rollouts = training_rollouts(context.inputs["rollouts"])
    config = context.config
    rows = {row for pair in view("dpo", rollouts, config["pair_rule"], config["pairs"]) for row in pair}
    context.say(f"log-probabilities of {len(rows)} rows")
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
    np.save(context.out / FILE, np.array(values, dtype=np.float64), allow_pickle=False)


def read_reference(folder: Path) -> list[float]:
    return np.load(folder / FILE, allow_pickle=False).tolist()
