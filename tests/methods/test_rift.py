from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods import rift, sft
from methods.batch import Batch


def test_value_by_hand() -> None:
    """Two rows of one token of probability 1/2, lambda 0.2: the right one 0.8 ln 2, the wrong one ln 2."""
    logp = torch.full((2, 1), 0.5, dtype=torch.float64).log()
    reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    losses = rift.losses(Batch(logp, torch.ones(2, 1, dtype=torch.bool), reward, reward), lambda_=0.2)
    assert losses[:, 0].tolist() == pytest.approx([0.5545177444479562, 0.6931471805599453], abs=1e-15)


def test_equals_numpy_and_ignores_padding(batch: Batch) -> None:
    r = batch.reward.numpy()
    nll = np.where(batch.mask.numpy(), -batch.logp.numpy(), 0.0)
    for lambda_ in (0.2, 0.7, 1.5):
        expected = (1 - r * lambda_)[:, None] * nll
        np.testing.assert_allclose(rift.losses(batch, lambda_=lambda_).numpy(), expected, rtol=1e-14)


def test_gradient(batch: Batch) -> None:
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rift.losses(replace(batch, logp=x)), logp)


def test_limits(batch: Batch) -> None:
    """lambda 0 is SFT; lambda 1 leaves the wrong rows alone; all right is (1 - lambda) SFT."""
    assert torch.equal(rift.losses(batch, lambda_=0.0), sft.losses(batch))
    only_wrong = rift.losses(batch, lambda_=1.0)
    assert torch.equal(only_wrong[1::2], sft.losses(batch)[1::2]) and not only_wrong[0::2].any()
    right = replace(batch, reward=torch.ones_like(batch.reward))
    assert torch.allclose(rift.losses(right, lambda_=0.2), 0.8 * sft.losses(batch), rtol=1e-15)
