from __future__ import annotations

import numpy as np
import torch

from methods.data.batch import Batch
from methods.objectives import sft
from tests.conftest import Agreement


def test_value_by_hand() -> None:
    """One row, tokens of probability 1/2 and 1/4: losses ln 2 and 2 ln 2."""
    batch = Batch(
        torch.tensor([[0.5, 0.25]], dtype=torch.float64).log(),
        torch.tensor([[True, True]]),
        torch.ones(1),
        torch.ones(1),
    )
    ln2 = 0.6931471805599453
    assert torch.allclose(sft.losses(batch), torch.tensor([[ln2, 2 * ln2]], dtype=torch.float64), atol=1e-15)


def test_agreement_with_numpy_whatever_the_padding_holds(batch: Batch, agreement: Agreement) -> None:
    expected = np.where(batch.mask.numpy(), -batch.logp.numpy(), 0.0)
    agreement("SFT: numpy", sft.losses(batch).numpy(), expected, 1e-15)


def test_gradient(batch: Batch) -> None:
    """-1 on completion tokens, 0 on padding; and as finite differences have it."""
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()

    def losses(logp: torch.Tensor) -> torch.Tensor:
        return sft.losses(Batch(logp, batch.mask, batch.reward, batch.group_mean))

    assert torch.autograd.gradcheck(losses, logp)
    (gradient,) = torch.autograd.grad(losses(logp).sum(), logp)
    assert torch.equal(gradient, -batch.mask.double())
