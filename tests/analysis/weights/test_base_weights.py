"""Deltas beside base weights: dense oracles on small weights, planted directions, invariances, edges."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from analysis.weights import base_weights
from analysis.weights.base_weights import BaseGeometry, module_base_geometry, summarise_base
from models.adapter import Factors
from tests.conftest import Agreement

Q = "model.layers.{}.self_attn.q_proj"
K = "model.layers.{}.self_attn.k_proj"
SHAPES = [(60, 40), (40, 60), (50, 50)]
THRESHOLD = 0.5


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def factors(out: int, in_: int, rank: int, seed: int) -> Factors:
    return Factors(randn(out, rank, seed=seed), randn(rank, in_, seed=seed + 1000))


def weight(out: int, in_: int, seed: int, spectrum: str = "flat") -> Tensor:
    """Gaussian ("flat"), with columns of unlike size ("uneven"), or with singular values 0.85^i ("steep")."""
    found = randn(out, in_, seed=seed)
    if spectrum == "uneven":
        return found * randn(in_, seed=seed + 1).exp()
    if spectrum == "steep":
        u, s, vh = torch.linalg.svd(found, full_matrices=False)
        return u * 0.85 ** torch.arange(len(s)) @ vh
    return found


def scaled(f: Factors, to: float) -> Factors:
    """The same direction with this largest singular value."""
    return Factors(f.b * to / torch.linalg.matrix_norm(f.b @ f.a, 2), f.a)


def planted(w: Tensor, kind: int, seed: int) -> Factors:
    """A random delta, one near single low directions of w, a mix of some, or one in w's own column space."""
    rank, numbers = 1 + seed % 4, Generator().manual_seed(seed)
    f = factors(*w.shape, rank, seed + 50)
    u, s, _ = torch.linalg.svd(w, full_matrices=False)
    low = torch.randperm(len(s) - 12, generator=numbers) + 12
    bases = (
        f.b,
        u[:, low[:rank]] + 0.05 * f.b / math.sqrt(len(w)),
        u[:, low[:6]] @ randn(6, rank, seed=seed),
        w @ randn(w.shape[1], rank, seed=seed),
    )
    strength = 10 ** (2.5 * float(torch.rand((), generator=numbers)) - 1.5)
    return scaled(Factors(bases[kind], f.a), strength * float(s[0]))


def nearest(w: Tensor, f: Factors, k: int) -> np.ndarray:
    """The largest |cosine| of each top left singular vector of the sum with all of w's, by dense SVDs."""
    u = np.linalg.svd(w.numpy(), full_matrices=False)[0]
    y = np.linalg.svd((w + f.b @ f.a).numpy(), full_matrices=False)[0][:, :k]
    return np.abs(u.T @ y).max(axis=0)


@pytest.mark.parametrize("shape", [*SHAPES, (300, 200)])
def test_agreement_of_shares_and_sizes_with_dense_svds(shape: tuple[int, int], agreement: Agreement) -> None:
    w = weight(*shape, 1)
    held = [scaled(factors(*shape, rank, rank), 3.0) for rank in (1, 4, 9)]
    found = module_base_geometry(w, held, k=6)
    u, s, vh = np.linalg.svd(w.numpy(), full_matrices=False)
    u, v = u[:, :6], vh[:6].T
    dense = [(f.b @ f.a).numpy() for f in held]
    squares = [np.sum(d**2) for d in dense]
    agreement("geometry: squared norms of deltas", found.squares, squares, 1e-12)
    agreement("geometry: squared norm of a base weight", found.weight_square, np.sum(w.numpy() ** 2), 1e-12)
    expected = {
        "both": [np.sum((u.T @ d @ v) ** 2) for d in dense],
        "left": [np.sum((u.T @ d) ** 2) for d in dense],
        "right": [np.sum((d @ v) ** 2) for d in dense],
    }
    for part, sums in expected.items():
        shares = np.divide(sums, squares)
        agreement(f"geometry: share in a base weight's top ({part})", getattr(found, part), shares, 1e-8)
    largest = [np.linalg.norm(d, 2) / s[0] for d in dense]
    agreement("geometry: sigma_1 of deltas over the base weight's", found.relative_sigma, largest, 1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spectrum", ["flat", "uneven", "steep"])
def test_agreement_of_intruders_with_brute_force(shape: tuple[int, int], spectrum: str, agreement: Agreement) -> None:
    """As dense SVDs of W and W + dW decide."""
    found, expected = [], []
    for seed in range(12):
        w = weight(*shape, seed, spectrum)
        held = [planted(w, kind, seed) for kind in range(4)]
        geometry = module_base_geometry(w, held, k=8, threshold=THRESHOLD)
        found.extend(geometry.intruders)
        expected.extend(int((nearest(w, f, 8) < THRESHOLD).sum()) for f in held)
    assert 0 < sum(expected) < 8 * len(expected)
    agreement("geometry: number of intruder dimensions", found, expected, 0)


@pytest.mark.parametrize("shape", [(420, 300), (300, 420)])
def test_agreement_of_intruders_with_brute_force_beyond_small(shape: tuple[int, int], agreement: Agreement) -> None:
    """Where some eigenvectors of the sum are made, not all."""
    assert min(shape) > base_weights.SMALL
    found, expected = [], []
    for seed, spectrum in enumerate(("flat", "uneven", "flat")):
        w = weight(*shape, seed, spectrum)
        held = [planted(w, kind, seed + 4) for kind in range(4)]
        found.extend(module_base_geometry(w, held, threshold=THRESHOLD).intruders)
        expected.extend(int((nearest(w, f, 10) < THRESHOLD).sum()) for f in held)
    assert 0 < sum(expected) < 10 * len(expected)
    agreement("geometry: number of intruder dimensions, n = 300", found, expected, 0)


@pytest.mark.parametrize("shape", [*SHAPES, (280, 210), (210, 280)])
def test_planted_directions(shape: tuple[int, int]) -> None:
    """W's own top is all of its share and nothing new; a spread rank 1 is one intruder; a low vector made strong is not
    new."""
    w = weight(*shape, 3)
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    top = Factors(u[:, :10] * 0.3, randn(10, 10, seed=1) @ vh[:10])
    spread = Factors(
        10 * s[0] * u.sum(1, keepdim=True) / math.sqrt(len(s)), vh.sum(0, keepdim=True) / math.sqrt(len(s))
    )
    low = len(s) - 5
    strong = Factors(3 * s[0] * u[:, low : low + 1], vh[7:8])
    found = module_base_geometry(w, [top, spread, strong])
    assert [found.both[0], found.left[0], found.right[0]] == pytest.approx([1, 1, 1], abs=1e-8)
    assert (found.left[1], found.left[2]) == pytest.approx((10 / len(s), 0), abs=1e-8)
    assert found.right[2] == pytest.approx(1, abs=1e-8)
    assert found.relative_sigma[1:] == pytest.approx([10, 3], rel=1e-8)
    assert found.intruders == [0, 1, 0]


@pytest.mark.parametrize(("shape", "rank"), [((60, 40), 40), ((60, 40), 20), ((40, 60), 25)])
def test_the_left_null_space_is_new(shape: tuple[int, int], rank: int) -> None:
    """A direction that W does not reach is none of W's, in a tall W or in one of deficient rank."""
    u, s, vh = torch.linalg.svd(weight(*shape, 2), full_matrices=False)
    w = u[:, :rank] * s[:rank] @ vh[:rank]
    outside = torch.linalg.svd(w).U[:, rank + 1 : rank + 2]
    found = module_base_geometry(w, [Factors(5 * s[0] * outside, randn(1, shape[1]) / shape[1] ** 0.5)])
    assert found.left == [pytest.approx(0, abs=1e-12)]
    assert found.intruders == [1]


def test_independent_of_how_a_delta_is_factored() -> None:
    w, f = weight(60, 40, 1), factors(60, 40, 5, 2)
    mix = torch.eye(5, dtype=torch.float64) + 0.3 * randn(5, 5, seed=9)
    same = Factors(f.b @ mix, torch.linalg.solve(mix, f.a))
    padded = Factors(torch.cat([f.b, torch.zeros(60, 2)], 1).double(), torch.cat([f.a, randn(2, 40)]))
    found = module_base_geometry(w, [f, same, padded])
    for part in ("squares", "both", "left", "right", "relative_sigma", "intruders"):
        values = getattr(found, part)
        assert values == pytest.approx([values[0]] * 3, rel=1e-9), part


def test_random_deltas_have_the_chance_share() -> None:
    w = weight(60, 40, 1)
    found = module_base_geometry(w, [factors(60, 40, 3, seed) for seed in range(300)], k=10)
    chance = summarise_base([str(m) for m in range(300)], {Q.format(0): found})["chance"]
    assert chance == pytest.approx({"both": 100 / 2400, "left": 10 / 60, "right": 10 / 40})
    for part in ("both", "left", "right"):
        values = np.array(getattr(found, part))
        assert abs(values.mean() - chance[part]) < 4 * values.std() / math.sqrt(len(values)), part


def test_same_bytes_alone_or_together_and_no_global_seed() -> None:
    w, held = weight(60, 40, 1).float(), [factors(60, 40, 4, seed) for seed in range(3)]
    torch.manual_seed(1)
    np.random.seed(1)
    state = torch.get_rng_state()
    whole = module_base_geometry(w, held)
    assert torch.equal(torch.get_rng_state(), state)
    np.random.seed(2)
    assert pickle.dumps(module_base_geometry(w, held)) == pickle.dumps(whole)
    assert BaseGeometry(**json.loads(json.dumps(asdict(whole)))) == whole
    for m, f in enumerate(held):
        alone = asdict(module_base_geometry(w, [f]))
        for part in ("squares", "both", "left", "right", "relative_sigma", "intruders"):
            assert alone[part] == [getattr(whole, part)[m]]


def test_zero_delta_and_zero_weight_are_null() -> None:
    f, zero = factors(30, 20, 4, 1), Factors(torch.zeros(30, 4).double(), randn(4, 20))
    nothing = Factors(torch.zeros(30, 0).double(), torch.zeros(0, 20).double())
    found = module_base_geometry(weight(30, 20, 1), [f, zero, nothing])
    assert found.squares[1:] == [0, 0]
    for part in ("both", "left", "right", "relative_sigma", "intruders"):
        first, *others = getattr(found, part)
        assert first is not None and others == [None, None]
    empty = module_base_geometry(torch.zeros(30, 20), [f, zero, nothing])
    assert (empty.k, empty.weight_square, empty.both, empty.intruders) == (0, 0, [None] * 3, [None] * 3)
    summary = summarise_base(["a", "b", "c"], {Q.format(0): found, Q.format(1): empty})
    json.dumps(summary, allow_nan=False)
    alive, dead, _ = summary["adapters"]
    assert (alive["modules"], alive["zero_modules"], alive["both"]) == (2, 1, pytest.approx(found.both[0]))
    assert (dead["zero_modules"], dead["both"], dead["intruders"], dead["relative_norm"]) == (2, None, None, 0)
    only = summarise_base(["a", "b", "c"], {Q.format(0): empty})
    assert only["adapters"][0]["relative_norm"] is None
    assert only["chance"] == {"both": None, "left": None, "right": None}


@pytest.mark.parametrize("rank", [1, 3])
def test_deficient_and_equal_singular_values(rank: int) -> None:
    """k is cut to W's rank; of a multiple of an orthogonal matrix every direction is a singular one."""
    w = factors(50, 40, rank, 1)
    found = module_base_geometry(w.b @ w.a, [scaled(factors(50, 40, 2, 5), 0.01)])
    assert (found.k, found.intruders) == (rank, [0])
    for n in (40, 250):
        turned = torch.linalg.qr(randn(n, n)).Q
        found = module_base_geometry(2 * turned, [factors(n, n, 2, 5)])
        assert (found.k, found.intruders) == (10, [0])
    vanished = module_base_geometry(w.b @ w.a, [Factors(-w.b, w.a)])
    assert (vanished.both, vanished.intruders) == ([pytest.approx(1)], [0])


def test_k_beyond_the_weight() -> None:
    found = module_base_geometry(weight(6, 5, 1), [factors(6, 5, 8, 2)], k=10)
    assert found.k == 5
    assert found.right == [pytest.approx(1)]


def test_refusals() -> None:
    w, f = weight(10, 8, 1), factors(10, 8, 2, 1)
    for bad in (math.nan, math.inf):
        broken = w.clone()
        broken[3, 4] = bad
        with pytest.raises(ValueError, match=r"^NaN or inf in a base weight[^\n]*$"):
            module_base_geometry(broken, [f])
    with pytest.raises(ValueError, match=r"^factors \(12, 2\) and \(2, 8\) do not fit a weight \(10, 8\)[^\n]*$"):
        module_base_geometry(w, [f, factors(12, 8, 2, 1)])
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(2, 8\) do not fit"):
        module_base_geometry(w, [Factors(randn(10, 3), f.a)])
    for arguments in ({"k": 0}, {"threshold": 0.0}, {"threshold": 1.5}):
        with pytest.raises(ValueError, match="are needed"):
            module_base_geometry(w, [f], **arguments)
    with pytest.raises(ValueError, match="are needed"):
        module_base_geometry(w, [])
    with pytest.raises(ValueError, match="no module"):
        summarise_base(["a"], {})
    with pytest.raises(ValueError, match="do not hold the 2 adapters"):
        summarise_base(["a", "b"], {Q.format(0): module_base_geometry(w, [f])})
    with pytest.raises(ValueError, match="differ in threshold"):
        modules = {Q.format(i): module_base_geometry(w, [f], threshold=0.1 * (i + 1)) for i in range(2)}
        summarise_base(["a"], modules)


def by_hand(out: int, in_: int, squares: list[float], both: list[float | None], new: list[int | None]) -> BaseGeometry:
    left = [None if share is None else 2 * share for share in both]
    right = [None if share is None else 3 * share for share in both]
    return BaseGeometry([out, in_], 2, 0.5, 100.0, squares, both, left, right, left, new)


def test_summary_by_hand() -> None:
    modules = {
        Q.format(10): by_hand(8, 4, [1.0, 0.0], [0.2, None], [1, None]),
        Q.format(2): by_hand(8, 4, [3.0, 4.0], [0.1, 0.3], [2, 0]),
        K.format(2): by_hand(2, 4, [4.0, 1.0], [0.05, 0.2], [0, 4]),
        "lm_head": by_hand(8, 4, [2.0, 5.0], [0.3, 0.1], [1, 1]),
    }
    summary = summarise_base(["a", "b"], modules)
    assert json.dumps(summary) == json.dumps(summarise_base(["a", "b"], dict(reversed(list(modules.items())))))
    first, second = summary["adapters"]
    assert first == {
        "name": "a",
        "both": pytest.approx((0.2 + 0.3 + 0.2 + 0.6) / 10),
        "left": pytest.approx(2 * 0.13),
        "right": pytest.approx(3 * 0.13),
        "relative_norm": pytest.approx(math.sqrt(10 / 400)),
        "relative_sigma_median": pytest.approx(0.3),
        "intruders": 4,
        "modules": 4,
        "zero_modules": 0,
    }
    assert second["both"] == pytest.approx((1.2 + 0.2 + 0.5) / 10)
    assert (second["intruders"], second["zero_modules"]) == (5, 1)
    assert [(entry["name"], entry["layer"]) for entry in summary["layers"]] == [
        ("a", 2),
        ("a", 10),
        ("b", 2),
        ("b", 10),
    ]
    assert summary["layers"][0]["both"] == pytest.approx((0.3 + 0.2) / 7)
    assert (summary["layers"][3]["both"], summary["layers"][3]["intruders"]) == (None, None)
    assert [entry["projection"] for entry in summary["projections"][:3]] == ["k_proj", "lm_head", "q_proj"]
    assert summary["projections"][2]["both"] == pytest.approx((0.3 + 0.2) / 4)
    assert [(entry["module"], entry["layer"]) for entry in summary["modules"][:4]] == [
        ("lm_head", None),
        (K.format(2), 2),
        (Q.format(2), 2),
        (Q.format(10), 10),
    ]
    entries = 3 * 32 + 8
    assert summary["chance"] == pytest.approx({"both": 16 / entries, "left": 32 / entries, "right": 52 / entries})
    assert (summary["k"], summary["threshold"]) == (2, 0.5)
