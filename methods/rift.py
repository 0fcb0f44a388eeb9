"""RIFT in the reference study's form: likelihood with a weight that falls with the reward."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.batch import Batch

# The study leaves lambda open; 0.2 is the size of the negative reward in Liu et al. 2026 (arXiv 2601.09253).
LAMBDA = 0.2


def losses(batch: Batch, *, lambda_: float = LAMBDA) -> Tensor:
    """``(1 - r * lambda) * nll_t``, n x t, with the row's reward r.

    arXiv 2606.23740, objective "RIFT", read literally: with r in {0, 1} and lambda > 0 a wrong row weighs 1
    and a right one 1 - lambda, less. The source of the method (Liu et al. 2026, arXiv 2601.09253) pulls wrong
    rows down instead.
    """
    weight = 1.0 - batch.reward * lambda_
    return weight[:, None] * batch.nll


METHOD = Method(title="RIFT", unit="token", view="all", losses=losses)
