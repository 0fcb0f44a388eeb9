"""Dynamic fine-tuning: each token's likelihood is weighted by the policy's own probability of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.objectives.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.data.batch import Batch


def losses(batch: Batch) -> Tensor:
    """``sg(pi(y_t)) * nll_t``, n x t, where sg stops the gradient.

    Wu et al. 2025 (arXiv 2508.05629), the token-level objective; the same in arXiv 2606.23740.
    """
    nll = batch.nll
    probability = (-nll).exp().detach()
    return probability * nll


METHOD = Method(title="DFT", unit="token", view="all", losses=losses, real=True, blind=True)
