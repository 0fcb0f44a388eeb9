"""CKA: the published formula written out, invariances, chance level, and coverage of its interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from analysis.function.cka import gram, jackknife, linear_cka, linear_ckas, shuffled, similarities, similarity


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def hsic_by_the_formula(x: np.ndarray, y: np.ndarray) -> float:
    """Song 2012: zero diagonals, then three terms; uncentred Grams, so shift invariance is tested too."""
    n, one = len(x), np.ones(len(x))
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / (n - 1) / (n - 2) - 2 / (n - 2) * (one @ k @ m @ one)
    return total / n / (n - 3)


def biased_by_the_formula(x: np.ndarray, y: np.ndarray) -> float:
    """Kornblith 2019: |Y'X|^2 / (|X'X| |Y'Y|) of centred features."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


def test_against_the_formulas() -> None:
    x = randn(20, 6, seed=1) + 3
    y = x[:, :4] + randn(20, 4, seed=2)
    gram_x, gram_y = gram(x), gram(y)
    raw_x, raw_y = x.numpy(), y.numpy()
    cross = hsic_by_the_formula(raw_x, raw_y)
    expected = cross / np.sqrt(hsic_by_the_formula(raw_x, raw_x) * hsic_by_the_formula(raw_y, raw_y))
    assert linear_cka(gram_x, gram_y) == pytest.approx(expected, rel=1e-10)
    assert linear_cka(gram_x, gram_y, debiased=False) == pytest.approx(biased_by_the_formula(raw_x, raw_y), rel=1e-10)


def test_four_prompts_by_hand() -> None:
    """n = 4, features (1,1,0,0) and (1,0,1,0). Off the diagonal K has one pair {0,1} at 1, L one pair {0,2}:
    tr KL = 0, sums 2 and 2, 1'KL1 = 1, so HSIC = (0 + 4/6 - 1) / 4 = -1/12; of K with itself it is
    (2 + 4/6 - 2) / 4 = 1/6. CKA = -1/2."""
    x, y = torch.tensor([[1.0], [1], [0], [0]]), torch.tensor([[1.0], [0], [1], [0]])
    assert linear_cka(gram(x), gram(y)) == pytest.approx(-1 / 2)


def test_independent_features_at_the_studys_size() -> None:
    """100 prompts x 2 560 features: biased about .96, debiased about 0."""
    x, y = gram(randn(100, 2560, seed=3)), gram(randn(100, 2560, seed=4))
    assert linear_cka(x, y, debiased=False) == pytest.approx(0.96, abs=0.01)
    assert linear_cka(x, y) == pytest.approx(0, abs=0.05)


def test_identity_and_invariances() -> None:
    x, y = randn(30, 12, seed=5), randn(30, 9, seed=6)
    y[:, :3] += x[:, :3]
    rotation = torch.linalg.qr(randn(12, 12, seed=7)).Q
    assert linear_cka(gram(x), gram(x)) == pytest.approx(1, abs=1e-14)
    assert linear_cka(gram(x), gram(5 * x @ rotation + 2)) == pytest.approx(1, abs=1e-12)
    value = linear_cka(gram(x), gram(y))
    assert 0.05 < value < 0.9
    assert linear_cka(gram(y), gram(x)) == pytest.approx(value, abs=1e-14)
    assert linear_cka(gram(x @ rotation * 0.1 - 4), gram(y)) == pytest.approx(value, abs=1e-12)
    order = torch.randperm(30, generator=Generator().manual_seed(8))
    assert linear_cka(gram(x[order]), gram(y[order])) == pytest.approx(value, abs=1e-12)


def test_shuffled_control() -> None:
    """Equal activations keep nothing once prompts are permuted; the passed generator alone decides."""
    x = gram(randn(60, 20, seed=9))
    control = shuffled(x, x, Generator().manual_seed(1), draws=50)
    assert abs(control) < 0.02
    assert control == shuffled(x, x, Generator().manual_seed(1), draws=50)
    assert control != shuffled(x, x, Generator().manual_seed(2), draws=50)


def test_jackknife_of_a_hand_made_partition() -> None:
    """Two groups, even and odd prompts: parts p and q give variance ((p - q) / 2)^2, t with 1 degree."""
    x = randn(16, 5, seed=10)
    y = x + randn(16, 5, seed=11)
    p, q = (linear_cka(gram(x[rows::2]), gram(y[rows::2])) for rows in (1, 0))
    whole, reach = linear_cka(gram(x), gram(y)), stats.t.ppf(0.95, 1) * abs(p - q) / 2
    low, high = jackknife(gram(x), gram(y), groups=2, level=0.9)
    assert low == pytest.approx(max(-1, whole - reach), abs=1e-10)
    assert high == pytest.approx(min(1, whole + reach), abs=1e-10)


def test_interval_covers_the_true_value() -> None:
    """Rows (x, x + noise), p = 40 of unit variance: population CKA is |cov|^2 over norms = 1 / 2. Of 200
    draws a 95 % interval misses about 10; 4 standard deviations of that count is 12."""
    truth, missed = 0.5, 0
    for seed in range(200):
        x = randn(60, 40, seed=seed)
        y = x + randn(60, 40, seed=seed + 10000)
        low, high = jackknife(gram(x), gram(y))
        missed += not low <= truth <= high
    assert missed <= 22


def test_undefined_is_none() -> None:
    three, four = gram(randn(3, 5)), gram(randn(4, 5))
    assert linear_cka(three, three) is None
    assert shuffled(three, three, Generator()) is None and jackknife(three, three) is None
    assert linear_cka(four, four) == pytest.approx(1)
    assert jackknife(four, four) is None
    assert similarity(three, three, Generator())["cka"] is None

    # The same last token everywhere: constant up to float32 rounding is constant.
    dust = torch.full((20, 8), 3.7) + 1e-7 * randn(20, 8, seed=1).float()
    other = gram(randn(20, 5, seed=2))
    assert linear_cka(gram(dust), other) is None and linear_cka(gram(dust), other, debiased=False) is None
    assert set(similarity(gram(dust), other, Generator()).values()) == {None}
    # One prompt alone differs: nothing is left off the diagonal.
    lone = torch.zeros(20, 3)
    lone[4] = 1
    assert linear_cka(gram(lone), other) is None
    with pytest.raises(ValueError, match="the same prompts"):
        linear_cka(three, four)


def test_similarity_gathers_them() -> None:
    x = randn(40, 6, seed=12)
    k, m = gram(x), gram(x + 0.5 * randn(40, 6, seed=13))
    found = similarity(k, m, Generator().manual_seed(3))
    assert found["low"] < found["cka"] < found["high"] <= 1
    assert (found["low"], found["high"]) == jackknife(k, m)
    assert found["shuffled"] == shuffled(k, m, Generator().manual_seed(3))
    assert found["biased"] == linear_cka(k, m, debiased=False)


def test_many_pairs_at_once_are_the_same_pair_by_pair() -> None:
    features = [randn(23, 9, seed=seed) for seed in range(5)]
    features[3] = features[0] + 0.1 * features[3]
    features[4] = torch.ones(23, 9, dtype=torch.float64)  # constant: undefined
    grams = [gram(x) for x in features]
    pairs = [(0, 1), (0, 3), (1, 2), (2, 4), (3, 3)]
    for n, groups in ((23, 10), (23, 4), (5, 10), (3, 10), (1, 10)):
        some = [held[:n, :n] for held in grams]
        found = similarities(some, pairs, Generator().manual_seed(7), groups)
        assert found == [similarity(some[i], some[j], Generator().manual_seed(7), groups) for i, j in pairs], (
            n,
            groups,
        )
        assert linear_ckas(some, pairs) == [linear_cka(some[i], some[j]) for i, j in pairs]
    assert found[0] == dict.fromkeys(("cka", "low", "high", "shuffled", "biased"))
