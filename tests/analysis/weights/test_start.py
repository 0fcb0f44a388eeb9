"""How far an adapter left its start: by hand, against the dense projection, and where it is not defined."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from analysis.weights.start import left_start, over_modules
from models.adapter import Factors


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand() -> None:
    """A0 = 2 e1, A = 2 e1 + e2, b = (3, 4): moved by 1 of 2; of |dW|^2 = 25 * 5 the part on e1 is 25 * 4."""
    a0 = torch.tensor([[2.0, 0.0, 0.0]]).double()
    left = left_start(Factors(torch.tensor([[3.0], [4.0]]).double(), a0 + torch.tensor([[0.0, 1.0, 0.0]])), a0)
    assert left.a_moved_rel == 0.5
    assert left.whole == 125
    assert left.start_share == pytest.approx(0.8, abs=1e-15)


def test_against_the_dense_projection() -> None:
    a0, f = randn(4, 30, seed=1), Factors(randn(20, 4, seed=2), randn(4, 30, seed=3))
    basis = torch.linalg.qr(a0.T).Q
    dense = f.b @ f.a
    share = float((dense @ basis).square().sum() / dense.square().sum())
    assert left_start(f, a0).start_share == pytest.approx(share, rel=1e-12)
    assert left_start(Factors(f.b, a0), a0).start_share == pytest.approx(1, abs=1e-12)
    moved = float((f.a - a0).norm() / a0.norm())
    assert left_start(f, a0).a_moved_rel == pytest.approx(moved, rel=1e-12)


def test_deficient_and_zero_starts() -> None:
    f = Factors(randn(5, 2, seed=1), randn(2, 6, seed=2))
    row = torch.stack([f.a[0], f.a[0]])
    one = f.a[0] / f.a[0].norm()
    dense = f.b @ f.a
    expected = float((dense @ one).square().sum() / dense.square().sum())
    assert left_start(f, row).start_share == pytest.approx(expected, rel=1e-12)
    nowhere = left_start(f, torch.zeros(2, 6))
    assert nowhere.a_moved_rel is None and nowhere.start_share == 0
    assert left_start(Factors(torch.zeros(5, 2), f.a), f.a).start_share is None
    with pytest.raises(ValueError, match=r"the initial A is \(3, 6\), the adapter's \(2, 6\)"):
        left_start(f, torch.zeros(3, 6))


def test_sums_over_modules_know_no_order() -> None:
    found = {
        f"model.layers.{i}.q_proj": [
            left_start(Factors(randn(5, 2, seed=i), randn(2, 6, seed=9 + i)), randn(2, 6, seed=7)),
            None,
        ]
        for i in range(11)
    }
    first, unknown = over_modules(found)
    assert first is not None and unknown is None
    assert over_modules(dict(reversed(found.items()))) == [first, None]
    assert first.moved == pytest.approx(sum(left.moved for left, _ in found.values() if left), rel=1e-12)


def test_where_b_was_drawn_it_is_the_mirror() -> None:
    """B0 = 2 e1, B = 2 e1 + e2: moved by 1 of 2; of |dW|^2 the part on e1 is 4 / 5. And it is that of the transpose."""
    b0 = torch.tensor([[2.0], [0.0], [0.0]]).double()
    f = Factors(b0 + torch.tensor([[0.0], [1.0], [0.0]]), torch.tensor([[3.0, 4.0]]).double())
    left = left_start(f, b0, "b")
    assert (left.a_moved_rel, left.whole) == (0.5, 125)
    assert left.start_share == pytest.approx(0.8, abs=1e-15)
    f, b0 = Factors(randn(20, 4, seed=2), randn(4, 30, seed=3)), randn(20, 4, seed=1)
    assert left_start(f, b0, "b") == left_start(f.transposed, b0.T)
    basis, dense = torch.linalg.qr(b0).Q, f.b @ f.a
    share = float((basis.T @ dense).square().sum() / dense.square().sum())
    assert left_start(f, b0, "b").start_share == pytest.approx(share, rel=1e-12)
    with pytest.raises(ValueError, match=r"the initial B is \(20, 3\), the adapter's \(20, 4\) \(out, r\)"):
        left_start(f, torch.zeros(20, 3), "b")
