"""Rejection-sampling fine-tuning: likelihood of the right rollouts only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.objectives.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.data.batch import Batch


def losses(batch: Batch, *, duplicates: str = "keep") -> Tensor:
    """Negative log-likelihood, n x t; the view selects the rows with reward 1.

    Yuan et al. 2023 (arXiv 2308.01825), rejection-sampling fine-tuning. ``duplicates`` is read by the view: ``keep``
    as in arXiv 2606.23740, ``drop`` keeps only the first of a problem's equal completions.
    """
    return batch.nll


METHOD = Method(title="RFT", unit="token", view="right", losses=losses, choices={"duplicates": ("keep", "drop")})
