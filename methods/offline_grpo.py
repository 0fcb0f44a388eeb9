"""Offline GRPO in the reference study's form: likelihood weighted with the centred reward plus a bias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.batch import Batch


def losses(batch: Batch, *, bias: float = 0.1) -> Tensor:
    """``A * nll_t`` with ``A = r - mean_g(r) + bias``, n x t; g are all rollouts of the row's problem.

    arXiv 2606.23740, objective "Offline GRPO": no division by the group's standard deviation, no probability
    weight, no KL term. Rows with A < 0 are pushed away from without a lower bound, and a group that is wrong
    throughout still gets the weight ``bias``.
    """
    advantage = batch.reward - batch.group_mean + bias
    return advantage[:, None] * batch.nll


METHOD = Method(title="Offline GRPO", unit="token", view="all", losses=losses)
