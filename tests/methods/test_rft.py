from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from methods import METHODS
from methods.data.batch import Batch, Rollout
from methods.data.view import view
from methods.objectives import rft, sft
from tests.conftest import Agreement


def test_value_by_hand() -> None:
    """One right row, tokens of probability 1/2 and 1/8: losses ln 2 and 3 ln 2."""
    logp = torch.tensor([[0.5, 0.125]], dtype=torch.float64).log()
    batch = Batch(logp, torch.tensor([[True, True]]), torch.ones(1), torch.ones(1))
    ln2 = 0.6931471805599453
    assert torch.allclose(rft.losses(batch), torch.tensor([[ln2, 3 * ln2]], dtype=torch.float64), atol=1e-15)


def test_agreement_with_numpy_on_its_view(batch: Batch, agreement: Agreement) -> None:
    """Selected by the view and summed: sum over right rows of the numpy likelihood."""
    rollouts = [Rollout([3], [4], float(r), 0) for r in batch.reward]
    rows = [row for (row,) in view("rft", rollouts)]
    part = Batch(batch.logp[rows], batch.mask[rows], batch.reward[rows], batch.group_mean[rows])
    r, mask, logp = batch.reward.numpy(), batch.mask.numpy(), batch.logp.numpy()
    expected = (r[:, None] * np.where(mask, -logp, 0.0)).sum()
    agreement("RFT: numpy", rft.losses(part).sum().item(), expected, 1e-15)


def test_gradient(batch: Batch) -> None:
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rft.losses(replace(batch, logp=x)), logp)


def test_all_right_is_sft(batch: Batch) -> None:
    assert torch.equal(rft.losses(batch), sft.losses(batch))
    rollouts = [Rollout([3], [4], 1.0, g) for g in range(5)]
    assert view("rft", rollouts) == view("sft", rollouts)
    assert METHODS["rft"].unit == METHODS["sft"].unit
