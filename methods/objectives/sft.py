"""Supervised fine-tuning: likelihood of every rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.objectives.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.data.batch import Batch


def losses(batch: Batch) -> Tensor:
    """Negative log-likelihood, n x t: ``-log pi(y_t | x, y_<t)`` on completion tokens, 0 elsewhere.

    Maximum likelihood; arXiv 2606.23740, objective "SFT".
    """
    return batch.nll


METHOD = Method(title="SFT", unit="token", view="all", losses=losses, real=True, blind=True)
