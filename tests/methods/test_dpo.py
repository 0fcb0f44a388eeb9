from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from methods import dpo
from methods.batch import Batch


def pair(chosen: float, rejected: float, reference: tuple[float, float]) -> Batch:
    logp = torch.tensor([[chosen], [rejected]], dtype=torch.float64)
    reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    mask = torch.ones(2, 1, dtype=torch.bool)
    return Batch(logp, mask, reward, reward, torch.tensor(reference, dtype=torch.float64))


def test_value_by_hand() -> None:
    """Log-ratios +2 and -8, beta 0.1: margin 1, loss ln(1 + e^-1) = 0.31326168751822286."""
    batch = pair(-3.0, -10.0, (-5.0, -2.0))
    assert dpo.losses(batch, beta=0.1).tolist() == pytest.approx([0.31326168751822286], abs=1e-15)
    assert {k: v.tolist() for k, v in dpo.metrics(batch, beta=0.1).items()} == {
        "margin": pytest.approx([1.0]),
        "reward_accuracy": [1.0],
    }


def test_equals_numpy_and_ignores_padding(batch: Batch) -> None:
    assert batch.reference is not None
    total = np.where(batch.mask.numpy(), batch.logp.numpy(), 0.0).sum(axis=1)
    ratio = total - batch.reference.numpy()
    expected = -np.log(1 / (1 + np.exp(-0.3 * (ratio[0::2] - ratio[1::2]))))
    np.testing.assert_allclose(dpo.losses(batch, beta=0.3).numpy(), expected, rtol=1e-12)


def test_gradient(batch: Batch) -> None:
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dpo.losses(replace(batch, logp=x)), logp)
    assert torch.autograd.gradcheck(lambda x: dpo.losses(replace(batch, logp=x), beta=5.0), logp)


@pytest.mark.parametrize("beta", [1e-9, 0.1, 5.0])
def test_equal_to_reference_is_ln2(beta: float) -> None:
    assert dpo.losses(pair(-7.0, -3.0, (-7.0, -3.0)), beta=beta).item() == pytest.approx(math.log(2), abs=1e-15)


def test_beta_to_zero() -> None:
    """The loss tends to ln 2, and the gradient over beta to -1/2 on chosen, +1/2 on rejected."""
    batch = pair(-3.0, -10.0, (-5.0, -2.0))
    logp = batch.logp.clone().requires_grad_()
    loss = dpo.losses(replace(batch, logp=logp), beta=1e-8)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    assert (gradient[:, 0] / 1e-8).tolist() == pytest.approx([-0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_stable_far_out(scale: float) -> None:
    """Margins of +-1e5: loss 0 and 1e5, gradients finite in float32 too."""
    batch = pair(1e3 * scale, 0.0, (0.0, 0.0))
    logp = batch.logp.float().requires_grad_()
    loss = dpo.losses(replace(batch, logp=logp, reference=torch.zeros(2)), beta=0.1)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    assert loss.item() == pytest.approx(max(0.0, -100.0 * scale))
    assert torch.isfinite(gradient).all()
