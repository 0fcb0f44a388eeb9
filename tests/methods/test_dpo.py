from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from methods.data.batch import Batch
from methods.objectives import dpo
from tests.conftest import Agreement


def pair(chosen: float, rejected: float, reference: tuple[float, float]) -> Batch:
    logp = torch.tensor([[chosen], [rejected]], dtype=torch.float64)
    reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    mask = torch.ones(2, 1, dtype=torch.bool)
    return Batch(logp, mask, reward, reward, torch.tensor(reference, dtype=torch.float64)[:, None])


def test_value_by_hand() -> None:
    """Log-ratios +2 and -8, beta 0.1: margin 1, loss ln(1 + e^-1) = 0.31326168751822286."""
    batch = pair(-3.0, -10.0, (-5.0, -2.0))
    assert dpo.losses(batch, beta=0.1).tolist() == pytest.approx([0.31326168751822286], abs=1e-15)
    assert {k: v.tolist() for k, v in dpo.metrics(batch, beta=0.1, length_normalised=False).items()} == {
        "margin": pytest.approx([1.0]),
        "reward_accuracy": [1.0],
    }


def ratios(batch: Batch, mean: bool = False) -> np.ndarray:
    """Log-ratio of each row to the base, token by token."""
    assert batch.reference is not None
    found = []
    for logp, reference, mask in zip(batch.logp.numpy(), batch.reference.numpy(), batch.mask.numpy(), strict=True):
        tokens = [a - b for a, b, real in zip(logp, reference, mask, strict=True) if real]
        found.append(sum(tokens) / (len(tokens) if mean else 1))
    return np.array(found)


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
    loss = dpo.losses(replace(batch, logp=logp, reference=torch.zeros(2, 1)), beta=0.1)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    assert loss.item() == pytest.approx(max(0.0, -100.0 * scale))
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("mean", [False, True], ids=["summed", "length-normalised"])
@pytest.mark.parametrize("form", ["sigmoid", "smoothed", "ipo", "hinge"])
def test_agreement_of_every_form_with_numpy(batch: Batch, agreement: Agreement, form: str, mean: bool) -> None:
    ratio = ratios(batch, mean)
    h, beta, e = ratio[0::2] - ratio[1::2], 0.7, 0.2
    settings = {"loss": "sigmoid", "label_smoothing": e} if form == "smoothed" else {"loss": form}
    expected = {
        "sigmoid": np.log1p(np.exp(-beta * h)),
        "smoothed": (1 - e) * np.log1p(np.exp(-beta * h)) + e * np.log1p(np.exp(beta * h)),
        "ipo": (h - 1 / (2 * beta)) ** 2,
        "hinge": np.maximum(0, 1 - beta * h),
    }[form]
    found = dpo.losses(batch, beta=beta, length_normalised=mean, **settings).numpy()
    agreement(f"DPO {form}{', mean' if mean else ''}: numpy", found, expected, 1e-12)


def test_forms_by_hand() -> None:
    """h = 10, beta 0.1, z = 1. IPO: (10 - 5)^2 = 25; hinge: max(0, 1 - 1) = 0; smoothing .25: ln(1 + e^-1) + .25."""
    batch = pair(-3.0, -10.0, (-5.0, -2.0))
    assert dpo.losses(batch, loss="ipo").tolist() == pytest.approx([25.0])
    assert dpo.losses(batch, loss="hinge").tolist() == pytest.approx([0.0], abs=1e-15)
    assert dpo.losses(batch, beta=0.05, loss="hinge").tolist() == pytest.approx([0.5])
    # ln(1 + e) = 1 + ln(1 + 1/e), so smoothing adds e * z.
    assert dpo.losses(batch, label_smoothing=0.25).tolist() == pytest.approx([0.31326168751822286 + 0.25], abs=1e-15)


@pytest.mark.parametrize("settings", [{"loss": "ipo"}, {"loss": "hinge", "beta": 0.2}, {"label_smoothing": 0.3}])
@pytest.mark.parametrize("mean", [False, True])
def test_gradient_of_every_form(batch: Batch, settings: dict[str, Any], mean: bool) -> None:
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    other = {"length_normalised": mean, **settings}
    assert torch.autograd.gradcheck(lambda x: dpo.losses(replace(batch, logp=x), **other), logp)


def test_limits_of_the_forms(batch: Batch) -> None:
    """At step 0: IPO 1 / (4 beta^2), hinge 1, smoothed ln 2. Length-normalised at one token a row: as summed."""
    start = replace(batch, reference=batch.logp)
    for settings, value in (
        ({"loss": "ipo", "beta": 0.5}, 1.0),
        ({"loss": "hinge"}, 1.0),
        ({"label_smoothing": 0.4}, math.log(2)),
    ):
        assert dpo.losses(start, **settings).tolist() == pytest.approx([value, value])
    assert batch.reference is not None
    single = Batch(batch.logp[:, :1], batch.mask[:, :1], batch.reward, batch.group_mean, batch.reference[:, :1])
    assert torch.equal(dpo.losses(single), dpo.losses(single, length_normalised=True))


def test_what_stands_in_the_padding_never_counts(batch: Batch) -> None:
    assert batch.reference is not None
    other = replace(batch, reference=torch.where(batch.mask, batch.reference, math.nan))
    for settings in ({}, {"loss": "ipo"}, {"loss": "hinge"}, {"length_normalised": True}):
        assert torch.equal(dpo.losses(batch, **settings), dpo.losses(other, **settings))
