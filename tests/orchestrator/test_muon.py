"""Muon in the weights' own precision: the library's steps but for its bfloat16, and singular values near one."""

from __future__ import annotations

import pytest
import torch

from orchestrator.bases.muon import Muon, orthogonal

SHAPES = [(16, 16), (8, 16), (48, 16), (16, 48), (16, 16)]


def test_its_steps_are_the_librarys_up_to_bfloat16() -> None:
    generator = torch.Generator().manual_seed(3)
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    first = [p.detach().clone() for p in ours]
    steps = [
        Muon(ours, lr=3e-3), torch.optim.Muon(theirs, lr=3e-3, adjust_lr_fn="match_rms_adamw", weight_decay=0.01)
    ]  # fmt: skip
    for _ in range(4):
        for one, two in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            two.grad = one.grad.clone()
        for step in steps:
            step.step()
    for start, one, two in zip(first, ours, theirs, strict=True):
        moved, other = one.detach() - start, two.detach() - start
        assert (moved - other).norm() < 0.02 * other.norm(), "bfloat16 keeps 8 bits"


def test_singular_values_are_brought_near_one_in_float32() -> None:
    generator = torch.Generator().manual_seed(4)
    for rows, columns in ((24, 24), (12, 40), (40, 12)):
        given = torch.randn((3, rows, columns), generator=generator)
        given[2] = 0
        found = orthogonal(given)
        assert found.dtype == torch.float32
        assert not found[2].any(), "a matrix of zeros has no direction"
        sigma = torch.linalg.svdvals(found[:2].double())
        well = torch.linalg.svdvals(given[:2].double()) > 0.05 * given[:2].double().norm(dim=(1, 2))[:, None]
        assert sigma[well].min() > 0.6 and sigma.max() < 1.3
        left, _, right = torch.linalg.svd(given[:2].double(), full_matrices=False)
        assert ((left @ right) * found[:2]).sum((1, 2)).min() > 0.8 * min(rows, columns), "the polar factor's direction"


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes matrices, not a parameter of shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=1e-3)
