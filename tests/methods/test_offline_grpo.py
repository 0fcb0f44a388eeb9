from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods import METHODS, check
from methods.data.batch import Batch, Rollout
from methods.data.view import group_means
from methods.objectives import offline_grpo, sft
from tests.conftest import Agreement


def test_value_by_hand() -> None:
    """A group of four, one right: A = 1 - 1/4 + 0.1 = 0.85 for it, -0.15 for the rest; probability 1/2."""
    rollouts = [Rollout([3], [4], r, 0) for r in (1.0, 0.0, 0.0, 0.0)]
    reward = torch.tensor([r.reward for r in rollouts], dtype=torch.float64)
    mean = torch.tensor(group_means(rollouts), dtype=torch.float64)
    logp = torch.full((4, 1), 0.5, dtype=torch.float64).log()
    losses = offline_grpo.losses(Batch(logp, torch.ones(4, 1, dtype=torch.bool), reward, mean))
    ln2 = 0.6931471805599453
    assert losses[:, 0].tolist() == pytest.approx([0.85 * ln2] + [-0.15 * ln2] * 3, abs=1e-15)


def test_agreement_of_the_studys_form_with_numpy(batch: Batch, agreement: Agreement) -> None:
    advantage = batch.reward.numpy() - batch.group_mean.numpy() + 0.3
    nll = np.where(batch.mask.numpy(), -batch.logp.numpy(), 0.0)
    losses = offline_grpo.losses(batch, bias=0.3).numpy()
    agreement("Offline GRPO study: numpy", losses, advantage[:, None] * nll, 1e-14)


def test_gradient(batch: Batch) -> None:
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: offline_grpo.losses(replace(batch, logp=x)), logp)


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_uniform_groups_weigh_the_bias(batch: Batch, reward: float) -> None:
    """All right, all wrong, or a group of one: A is the bias; with bias 1 that is SFT, with 0 nothing."""
    rows = torch.full_like(batch.reward, reward)
    uniform = replace(batch, reward=rows, group_mean=rows)
    assert torch.equal(offline_grpo.losses(uniform, bias=1.0), sft.losses(batch))
    assert not offline_grpo.losses(uniform, bias=0.0).any()
    assert group_means([Rollout([3], [4], reward, 7)]) == [reward]


def test_has_no_lower_bound() -> None:
    """A wrong row of a mixed group: ever less likely, ever lower the loss."""
    reward, mean = torch.zeros(1), torch.full((1,), 0.5)
    low = [
        offline_grpo.losses(Batch(torch.full((1, 1), x), torch.tensor([[True]]), reward, mean)).item()
        for x in (-1.0, -1e3, -1e6)
    ]
    assert low == pytest.approx([-0.4, -0.4e3, -0.4e6])


def test_source_by_hand() -> None:
    """A right row of a group with mean 1/4, a row of a group right throughout, a wrong row of a mixed one.

    A = 3/4, .1 (the bias), -1/4; probability 1/2 each. With the base at 1/4: d = ln 2, k3 = 1/2 + ln 2 - 1.
    """
    logp = torch.full((3, 1), 0.5, dtype=torch.float64).log()
    reward = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    mean = torch.tensor([0.25, 1.0, 0.25], dtype=torch.float64)
    batch = Batch(logp, torch.ones(3, 1, dtype=torch.bool), reward, mean, torch.full_like(logp, 0.25).log())
    free = offline_grpo.losses(batch, form="source", kl=0.0)[:, 0]
    assert free.tolist() == pytest.approx([-0.375, -0.05, 0.125], abs=1e-15)
    held = offline_grpo.losses(batch, form="source", kl=0.2)[:, 0]
    assert (held - free).tolist() == pytest.approx([0.2 * (0.6931471805599453 - 0.5)] * 3, abs=1e-15)


def test_agreement_of_the_source_form_with_numpy(batch: Batch, agreement: Agreement) -> None:
    """The bias where the whole group is right, probability-weighted, KL by k3 = r - 1 - ln r with r = base / policy."""
    means = torch.tensor([0.5, 0.5, 1.0, 0.0], dtype=torch.float64)
    reward = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    given = replace(batch, reward=reward, group_mean=means)
    assert batch.reference is not None
    expected = np.zeros(batch.mask.shape)
    for i, j in zip(*batch.mask.numpy().nonzero(), strict=True):
        advantage = float(reward[i] - means[i]) + (0.3 if means[i] == 1 else 0.0)
        policy, base = np.exp(float(batch.logp[i, j])), np.exp(float(batch.reference[i, j]))
        expected[i, j] = -advantage * policy + 0.7 * (base / policy - 1 - np.log(base / policy))
    found = offline_grpo.losses(given, form="source", bias=0.3, kl=0.7).numpy()
    agreement("Offline GRPO source: numpy", found, expected, 1e-13)


def test_gradient_of_the_source_form(batch: Batch) -> None:
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: offline_grpo.losses(replace(batch, logp=x), form="source"), logp)


def test_limits_of_the_source_form(batch: Batch) -> None:
    """All wrong or a group of one wrong row: nothing; all right: the bias; the KL term is least, 0, at the base."""
    wrong = replace(batch, reward=torch.zeros(4), group_mean=torch.zeros(4))
    assert not offline_grpo.losses(wrong, form="source", kl=0.0).any()
    right = replace(batch, reward=torch.ones(4).double(), group_mean=torch.ones(4).double())
    assert torch.equal(offline_grpo.losses(right, form="source", kl=0.0, bias=1.0), -batch.probability)
    logp = torch.where(batch.mask, batch.logp, 0.0).requires_grad_()
    start = replace(batch, logp=logp, reference=logp.detach())
    (gradient,) = torch.autograd.grad(offline_grpo.divergence(start).sum(), logp)
    assert not offline_grpo.divergence(start).any() and not gradient.any()
    assert (offline_grpo.divergence(batch) >= 0).all()


def test_only_the_source_form_with_a_kl_term_reads_the_base() -> None:
    method = METHODS["offline_grpo"]
    wanted = {"study": {}, "source": {"form": "source"}, "free": {"form": "source", "kl": 0.0}}
    needs = {name: method.needs_reference(check("offline_grpo", settings)) for name, settings in wanted.items()}
    assert needs == {"study": False, "source": True, "free": False}
