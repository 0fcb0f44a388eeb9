from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods.data.batch import Batch
from methods.objectives import dft
from tests.conftest import Agreement


def test_value_by_hand() -> None:
    """Probabilities 1/2 and 1/4: p * -ln p is ln(2) / 2 for both (1/4 * 2 ln 2), 0.34657."""
    logp = torch.tensor([[0.5, 0.25]], dtype=torch.float64).log()
    losses = dft.losses(Batch(logp, torch.tensor([[True, True]]), torch.ones(1), torch.ones(1)))
    assert losses.tolist() == [pytest.approx([0.34657359027997264] * 2, abs=1e-15)]


def test_agreement_with_numpy_whatever_the_padding_holds(batch: Batch, agreement: Agreement) -> None:
    logp = np.where(batch.mask.numpy(), batch.logp.numpy(), 0.0)
    agreement("DFT: numpy", dft.losses(batch).numpy(), -np.exp(logp) * logp, 1e-14)


def test_gradient_is_that_of_the_stopped_weight(batch: Batch) -> None:
    """d/dlogp of -sg(p) logp is -p. Finite differences cannot stop one: they check -w logp at w = p."""
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    (gradient,) = torch.autograd.grad(dft.losses(replace(batch, logp=logp)).sum(), logp)
    weight = logp.detach().exp() * batch.mask
    assert torch.allclose(gradient, -weight, rtol=1e-14)
    assert torch.autograd.gradcheck(lambda x: -weight * x, logp)


def test_limits() -> None:
    """p -> 1: SFT's gradient; p -> 0: none, and the loss stays finite."""
    logp = torch.tensor([[-1e-12, -800.0]], dtype=torch.float64, requires_grad=True)
    losses = dft.losses(Batch(logp, torch.tensor([[True, True]]), torch.ones(1), torch.ones(1)))
    (gradient,) = torch.autograd.grad(losses.sum(), logp)
    assert gradient.tolist() == [pytest.approx([-1.0, 0.0], abs=1e-11)]
    assert losses[0, 1].item() == 0.0
