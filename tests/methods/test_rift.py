from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from methods import METHODS, check
from methods.data.batch import Batch
from methods.objectives import rift, sft
from tests.conftest import Agreement


def test_value_by_hand() -> None:
    """Two rows of one token of probability 1/2, lambda 0.2: the right one 0.8 ln 2, the wrong one ln 2."""
    logp = torch.full((2, 1), 0.5, dtype=torch.float64).log()
    reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    losses = rift.losses(Batch(logp, torch.ones(2, 1, dtype=torch.bool), reward, reward), lambda_=0.2)
    assert losses[:, 0].tolist() == pytest.approx([0.5545177444479562, 0.6931471805599453], abs=1e-15)


def test_agreement_of_the_studys_form_with_numpy(batch: Batch, agreement: Agreement) -> None:
    r = batch.reward.numpy()
    nll = np.where(batch.mask.numpy(), -batch.logp.numpy(), 0.0)
    for lambda_ in (0.2, 0.7, 1.5):
        expected = (1 - r * lambda_)[:, None] * nll
        agreement(f"RIFT study, lambda {lambda_}: numpy", rift.losses(batch, lambda_=lambda_).numpy(), expected, 1e-14)


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


SOURCES = ["token", "normalised", "sequence"]


def test_source_by_hand() -> None:
    """Two tokens of probability 1/2 and 1/4. Right: nll 3 ln 2. Wrong, -0.2: tokens .2 (1/2 + 1/4) = .15; the sequence
    .2 / 8 = .025; normalised .2 / sqrt(8) = .0707, beside a mean nll of 1.5 ln 2.
    """
    logp = torch.tensor([[0.5, 0.25]] * 2, dtype=torch.float64).log()
    reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    batch = Batch(logp, torch.ones(2, 2, dtype=torch.bool), reward, reward)
    ln2 = math.log(2)
    expected = {"token": [3 * ln2, 0.15], "normalised": [1.5 * ln2, 0.2 / math.sqrt(8)], "sequence": [3 * ln2, 0.025]}
    for probability, values in expected.items():
        losses = rift.losses(batch, form="source", probability=probability)
        rows = losses.sum(dim=1) if losses.dim() == 2 else losses
        assert rows.tolist() == pytest.approx(values, abs=1e-15)


@pytest.mark.parametrize("probability", SOURCES)
def test_agreement_of_the_source_form_with_numpy(batch: Batch, agreement: Agreement, probability: str) -> None:
    """Row by row, token by token, in the words of the source."""
    expected = []
    for logp, mask, reward in zip(batch.logp.numpy(), batch.mask.numpy(), batch.reward.numpy(), strict=True):
        tokens = np.array([x for x, real in zip(logp, mask, strict=True) if real])
        if probability == "token":
            each = -0.9 * tokens if reward == 1 else 0.3 * np.exp(tokens)
            expected.append(each.sum())
        else:
            whole = tokens.mean() if probability == "normalised" else tokens.sum()
            expected.append(-0.9 * whole if reward == 1 else 0.3 * np.exp(whole))
    losses = rift.losses(batch, form="source", probability=probability, right=0.9, wrong=-0.3)
    rows = losses.sum(dim=1) if losses.dim() == 2 else losses
    agreement(f"RIFT source, {probability}: numpy", rows.numpy(), expected, 1e-13)


@pytest.mark.parametrize("probability", SOURCES)
def test_gradient_of_the_source_form(batch: Batch, probability: str) -> None:
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: rift.losses(replace(batch, logp=x), form="source", probability=probability), logp
    )


@pytest.mark.parametrize("probability", SOURCES)
def test_limits_of_the_source_form(batch: Batch, probability: str) -> None:
    """wrong 0 leaves the right rows' likelihood; a wrong row has a floor of 0, which the study's form lacks."""
    source = {"form": "source", "probability": probability}
    losses = rift.losses(batch, wrong=0.0, **source)
    assert not losses[1::2].any()
    if probability == "token":
        assert torch.equal(losses[0::2], sft.losses(batch)[0::2])
    far = replace(batch, logp=batch.logp.clamp(max=0) - 1e4, reward=torch.zeros_like(batch.reward))
    assert 0 <= rift.losses(far, **source).sum() < 1e-9
    assert rift.losses(replace(far, reward=torch.ones(4)), lambda_=1.5).sum() < -1e3, "the study's has none"


def test_unit_follows_the_form() -> None:
    method = METHODS["rift"]
    units = {p: method.unit_of(check("rift", {"form": "source", "probability": p})) for p in SOURCES}
    assert units == {"token": "token", "normalised": "sequence", "sequence": "sequence"}
    assert method.unit_of(check("rift", {})) == "token"
    assert method.takes_real(check("rift", {})) and not method.takes_real(check("rift", {"form": "source"}))
