"""Rejection-sampling fine-tuning: the likelihood of the right rollouts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.objectives.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.data.batch import Batch


def losses(batch: Batch, *, duplicates: str = "keep") -> Tensor:
    """Negative log-likelihood, n x t; the selection of rows with reward 1 is the view's, not the formula's.

    Yuan et al. 2023 (arXiv 2308.01825), rejection-sampling fine-tuning. ``duplicates`` is the view's too: ``keep``
    as arXiv 2606.23740 writes it, ``drop`` for a problem's first completion of each text only.
    """
    return batch.nll


METHOD = Method(title="RFT", unit="token", view="right", losses=losses, choices={"duplicates": ("keep", "drop")})
