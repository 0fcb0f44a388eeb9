"""Direct preference optimisation on (right, wrong) pairs of one problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.batch import Batch


def margin(batch: Batch, *, beta: float) -> Tensor:
    """Implicit reward of chosen over rejected, a pair: ``beta * (logratio(chosen) - logratio(rejected))``."""
    assert batch.reference is not None, "DPO reads the reference's log-probabilities"
    logratio = -batch.nll.sum(dim=1) - batch.reference
    return beta * (logratio[0::2] - logratio[1::2])


def losses(batch: Batch, *, beta: float = 0.1) -> Tensor:
    """``-log sigmoid(margin)``, one a pair; rows 2i are chosen, rows 2i + 1 rejected, log-probabilities are
    summed.

    Rafailov et al. 2023 (arXiv 2305.18290), section 4, equation 7; the reference is the base model.
    """
    z = margin(batch, beta=beta)
    # log(exp(0) + exp(-z)): the same function, stable for margins of any size.
    return (-z).logaddexp(z.new_zeros(()))


def metrics(batch: Batch, *, beta: float) -> dict[str, Tensor]:
    """``margin`` and ``reward_accuracy`` (1 where the margin is above 0), one value a pair."""
    z = margin(batch, beta=beta).detach()
    return {"margin": z, "reward_accuracy": (z > 0).to(z.dtype)}


METHOD = Method(
    title="DPO",
    unit="pair",
    view="pairs",
    losses=losses,
    metrics=metrics,
    reference=True,
    positive=("beta",),
)
