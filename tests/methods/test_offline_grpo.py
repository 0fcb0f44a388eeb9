from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods import offline_grpo, sft
from methods.batch import Batch, Rollout
from methods.view import group_means


def test_value_by_hand() -> None:
    """A group of four, one right: A = 1 - 1/4 + 0.1 = 0.85 for it, -0.15 for the rest; probability 1/2."""
    rollouts = [Rollout([3], [4], r, 0) for r in (1.0, 0.0, 0.0, 0.0)]
    reward = torch.tensor([r.reward for r in rollouts], dtype=torch.float64)
    mean = torch.tensor(group_means(rollouts), dtype=torch.float64)
    logp = torch.full((4, 1), 0.5, dtype=torch.float64).log()
    losses = offline_grpo.losses(Batch(logp, torch.ones(4, 1, dtype=torch.bool), reward, mean))
    ln2 = 0.6931471805599453
    assert losses[:, 0].tolist() == pytest.approx([0.85 * ln2] + [-0.15 * ln2] * 3, abs=1e-15)


def test_equals_numpy_and_ignores_padding(batch: Batch) -> None:
    advantage = batch.reward.numpy() - batch.group_mean.numpy() + 0.3
    nll = np.where(batch.mask.numpy(), -batch.logp.numpy(), 0.0)
    losses = offline_grpo.losses(batch, bias=0.3).numpy()
    np.testing.assert_allclose(losses, advantage[:, None] * nll, rtol=1e-14)


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
