"""One model's losses on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from analysis.function.connectivity import token_mean
from analysis.function.forward import attached, completion_hidden, completion_scores
from execution.context import Context, Inputs
from execution.store import write_json
from models.adapter import Factors, load_factors
from models.base import load
from models.head import check
from models.logprobs import Row
from orchestrator.rollouts.dataset import read_table
from orchestrator.runtime.device import device
from orchestrator.steps.base import model_folder
from orchestrator.steps.losses import FILE

BATCH = 8


class HeldOut(NamedTuple):
    """Held-out rows, right and wrong."""

    right: list[Row]
    wrong: list[Row]


def heldout_rows(rollouts: Path, most: int) -> HeldOut:
    """The first held-out rows of a finished rollouts step, at most ``most`` of each kind."""
    held = read_table(rollouts, "heldout")
    right, wrong = (
        [(row["prompt_ids"], row["completion_ids"]) for row in held if (row["reward"] > 0) == kind][:most]
        for kind in (True, False)
    )
    return HeldOut(right, wrong)


def measure_losses(context: Context) -> None:
    """Write ``losses.json``: the model's name, nll of right and of wrong rows, and KL to base."""
    config = context.config
    held = heldout_rows(context.inputs["rollouts"], config["rows"])
    rows = [*held.right, *held.wrong]
    model = load_checked(context.inputs, config["attention"], rows)
    context.progress(f"{len(rows)} held-out rows")
    reference = completion_hidden(model, rows, BATCH)
    with attached(model, factors_of(context.inputs)):
        scores = completion_scores(model, rows, BATCH, reference)
    right, wrong = scores[: len(held.right)], scores[len(held.right) :]
    tokens = sum(s.tokens for s in scores)
    write_json(
        context.out / FILE,
        {
            "name": config["model"],
            "nll_right": mean_loss([(s.nll, s.tokens) for s in right]),
            "nll_wrong": mean_loss([(s.nll, s.tokens) for s in wrong]),
            "kl_to_base": _finite(sum(s.kl or 0.0 for s in scores) / tokens),
        },
    )


def load_checked(inputs: Inputs, attention: str, rows: Sequence[Row]) -> PreTrainedModel:
    """The base in float32, its head checked on one of the rows that it is to be measured on."""
    model = load(model_folder(inputs["base"]), "float32", attention, device())
    for prompt, completion in rows[:1]:
        check(model, [*prompt, *completion])
    return model


def factors_of(inputs: Inputs, role: str = "adapter") -> dict[str, Factors]:
    """The factors, in float32, of the training that stands under a role; none, the base, where no training does."""
    return load_factors(inputs[role] / "adapter", dtype=torch.float32) if role in inputs else {}


def mean_loss(scores: Sequence[tuple[float, int]]) -> float | None:
    """Mean over tokens of (sum, tokens) per row; None without rows and where it is not finite."""
    return _finite(token_mean(scores)) if scores else None


def _finite(value: float) -> float | None:
    """None if not finite, so that a diverged adapter is measured all the same."""
    return value if math.isfinite(value) else None
