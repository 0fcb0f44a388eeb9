"""Batches and rollouts for the tests of methods/."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from methods.data.batch import Batch, Rollout


@pytest.fixture
def batch() -> Batch:
    """Four rows of up to five tokens, float64, garbage in the padding; rows 2i and 2i + 1 share a problem."""
    generator = torch.Generator().manual_seed(5)
    logp = -3 * torch.rand((4, 5), generator=generator, dtype=torch.float64) - 0.01
    mask = torch.arange(5)[None, :] < torch.tensor([5, 2, 3, 1])[:, None]
    logp = torch.where(mask, logp, 1e6)
    reward = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    reference = logp + 2 * torch.rand((4, 5), generator=generator, dtype=torch.float64) - 1
    return Batch(logp, mask, reward, torch.full((4,), 0.5, dtype=torch.float64), reference)


@pytest.fixture(scope="session")
def rollouts() -> list[Rollout]:
    """Twelve problems of four rollouts over the tiny model's words: mixed, all right and all wrong ones."""
    rng = np.random.default_rng(3)
    rows = []
    for group in range(12):
        prompt = rng.integers(2, 64, int(rng.integers(3, 8))).tolist()
        for k in range(4):
            completion = [*rng.integers(2, 64, int(rng.integers(2, 9))).tolist(), 1]
            reward = float({0: True, 1: False}.get(group, (group + k) % 3 != 0))
            rows.append(Rollout(prompt, completion, reward, group))
    return rows
