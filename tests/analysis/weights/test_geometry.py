"""Geometry: planted deltas at real shapes, dense oracles on small ones, invariances, edges."""

from __future__ import annotations

import json
import math
import pickle
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Generator, Tensor

from analysis.weights import geometry
from analysis.weights.geometry import module_geometry
from analysis.weights.summary import effective_rank, layer_grams, overlap, stable_rank, summarise
from models.adapter import Factors

Q = "model.layers.{}.self_attn.q_proj"
# Descending with a gap after the tenth: top-10 subspaces are well defined.
SPECTRUM = torch.cat([torch.linspace(3, 2, 10), torch.linspace(0.5, 0.1, 22)]).double()
ANGLES = torch.tensor([0.01, 0.5, 5.0, 20.0, 35.0, 45.0, 60.0, 75.0, 89.0, 90.0]).double()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def basis(d: int, k: int, seed: int) -> Tensor:
    return torch.linalg.qr(randn(d, k, seed=seed)).Q


def factors(out: int, in_: int, rank: int, seed: int) -> Factors:
    return Factors(randn(out, rank, seed=seed), randn(rank, in_, seed=seed + 1000))


def planted_pair(d: int, angles: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two d x rank orthonormal bases: columns i < k at the given angles, the rest orthogonal to all."""
    k = len(angles)
    frame = basis(d, 2 * rank, seed)
    x, y = frame[:, :rank].clone(), frame[:, rank:].clone()
    radians = torch.deg2rad(angles)
    y[:, :k] = x[:, :k] * radians.cos() + frame[:, rank : rank + k] * radians.sin()
    return x, y


@pytest.mark.parametrize(("out", "in_"), [(4096, 2560), (1024, 2560), (2560, 4096)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_planted_pair_at_qwen3_shapes(out: int, in_: int, dtype: torch.dtype) -> None:
    """Both sides planted; column i of one meets column i of the other at a known angle and nothing else, so
    <dW, dW'> = sum over i < 10 of sigma_i^2 cos(left_i) cos(right_i). The factors are mixed by a random G."""
    right_angles = ANGLES * 0.5
    u, u2 = planted_pair(out, ANGLES, 32, 1)
    v, v2 = planted_pair(in_, right_angles, 32, 2)
    mix = torch.eye(32, dtype=torch.float64) + 0.1 * randn(32, 32, seed=3)
    first = Factors((u * SPECTRUM @ mix).to(dtype), torch.linalg.solve(mix, v.T).to(dtype))
    second = Factors((2 * u2 * SPECTRUM).to(dtype), v2.T.to(dtype))
    found = module_geometry([first, second])
    summary = summarise(["a", "b"], {Q.format(0): found})
    pair = summary["pairs"][0]

    exact = dtype is torch.float64
    degrees, relative = (1e-7, 1e-12) if exact else (5e-4, 1e-6)
    np.testing.assert_allclose(found.left[0], ANGLES, rtol=0, atol=degrees)
    np.testing.assert_allclose(found.right[0], right_angles, rtol=0, atol=degrees)
    norm = float(SPECTRUM.norm())
    inner = float((SPECTRUM[:10] ** 2 * torch.deg2rad(ANGLES).cos() * torch.deg2rad(right_angles).cos()).sum())
    cosine = inner / norm**2
    assert pair["cosine"] == pytest.approx(cosine, abs=relative)
    assert pair["orthogonal_fraction"] == pytest.approx(math.sqrt(1 - cosine**2), abs=relative)
    assert [a["norm"] for a in summary["adapters"]] == pytest.approx([norm, 2 * norm], rel=relative)
    assert pair["u1"] == pytest.approx(math.cos(math.radians(0.01)), abs=relative)
    assert pair["v1"] == pytest.approx(math.cos(math.radians(0.005)), abs=relative)
    assert pair["gap_median"] == pytest.approx((2 - 0.5) / 2, abs=10 * relative)
    assert (pair["k"], summary["k"], found.ranks.tolist()) == (10, 10, [32, 32])


@pytest.mark.parametrize("degrees", [1e-9, 1e-6, 0.01, 0.05, 0.06])
def test_small_angles_keep_their_digits(degrees: float) -> None:
    """Far below what acos can see (about 1e-6 degrees), beside a right angle in the same subspace."""
    u, u2 = planted_pair(200, torch.tensor([degrees, 90.0]).double(), 2, 4)
    v = basis(100, 2, 5)
    sigma = torch.tensor([2.0, 1.0]).double()
    found = module_geometry([Factors(u * sigma, v.T), Factors(u2 * sigma, v.T)])
    np.testing.assert_allclose(found.left[0, :2], [degrees, 90], rtol=1e-6, atol=1e-12)


def test_against_dense_oracles() -> None:
    """numpy's SVD of the dense delta and scipy's subspace angles, for unlike ranks too."""
    k = 5
    held = [factors(40, 30, rank, seed) for seed, rank in enumerate([8, 8, 12, 6, 8])]
    found = module_geometry(held, k)
    dense = [(f.b @ f.a).numpy() for f in held]
    svds = [np.linalg.svd(d) for d in dense]
    for f, sigma, (_, expected, _) in zip(held, found.singular_values, svds, strict=True):
        np.testing.assert_allclose(sigma[: f.a.shape[0]], expected[: f.a.shape[0]], rtol=1e-12)
        assert not sigma[f.a.shape[0] :].any()
    np.testing.assert_allclose(found.gram, [[np.sum(x * y) for y in dense] for x in dense], rtol=1e-11, atol=1e-11)
    for row, (i, j) in enumerate(combinations(range(5), 2)):
        (ui, _, vi), (uj, _, vj) = svds[i], svds[j]
        left, right = subspace_angles(ui[:, :k], uj[:, :k]), subspace_angles(vi[:k].T, vj[:k].T)
        np.testing.assert_allclose(found.left[row], np.rad2deg(left)[::-1], atol=1e-9)
        np.testing.assert_allclose(found.right[row], np.rad2deg(right)[::-1], atol=1e-9)
        assert found.u1[row] == pytest.approx(abs(ui[:, 0] @ uj[:, 0]), abs=1e-11)
        assert found.v1[row] == pytest.approx(abs(vi[0] @ vj[0]), abs=1e-11)


def test_summary_against_dense_deltas() -> None:
    """Global, layer and projection numbers of two modules against the stacked dense deltas."""
    names = [Q.format(0), Q.format(1), "model.layers.1.self_attn.k_proj"]
    held = {name: [factors(20, 24, 4, 10 * m + seed) for seed in range(2)] for m, name in enumerate(names)}
    modules = {name: module_geometry(pair) for name, pair in held.items()}
    summary = summarise(["a", "b"], modules)

    def flat(which: int, keep: list[str]) -> np.ndarray:
        return np.concatenate([(held[name][which].b @ held[name][which].a).numpy().ravel() for name in keep])

    def check(entry: dict, keep: list[str]) -> None:
        x, y = flat(0, keep), flat(1, keep)
        assert entry["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-13)
        residual = y - (x @ y) / (x @ x) * x
        assert entry["orthogonal_fraction"] == pytest.approx(np.linalg.norm(residual) / np.linalg.norm(y), abs=1e-12)
        smallest = [modules[name].left[0, 0] for name in keep]
        assert entry["angle_min_median_deg"] == pytest.approx(np.median(smallest), abs=1e-12)
        assert entry["u1"] == pytest.approx(np.mean([modules[name].u1[0] for name in keep]), abs=1e-12)

    check(summary["pairs"][0], names)
    assert [entry["layer"] for entry in summary["layers"]] == [0, 1]
    check(summary["layers"][1], names[1:])
    assert [entry["projection"] for entry in summary["projections"]] == ["k_proj", "q_proj"]
    check(summary["projections"][1], names[:2])
    assert len(summary["modules"]) == 3
    np.testing.assert_allclose(summary["gram"][0][1], flat(0, names) @ flat(1, names), rtol=1e-12)
    norms = [np.linalg.norm(flat(m, names[1:])) for m in range(2)]
    layer_one = [entry["norm"] for entry in summary["adapter_layers"] if entry["layer"] == 1]
    np.testing.assert_allclose(layer_one, norms, rtol=1e-12)


def test_ranks_gaps_and_overlap_by_hand() -> None:
    """Equal values: their count. (3, 1): exp(-(3/4 ln 3/4 + 1/4 ln 1/4)) = 4 / 3^(3/4), and 10 / 9."""
    spectra = np.array([[2.0] * 7, [3.0, 1.0] + [0.0] * 5, [0.0] * 7])
    np.testing.assert_allclose(effective_rank(spectra), [7, 4 / 3**0.75, np.nan])
    np.testing.assert_allclose(stable_rank(spectra), [7, 10 / 9, np.nan])
    np.testing.assert_allclose(
        overlap(np.array([[0.0, 60.0], [90.0, np.nan], [np.nan] * 2])), [0.625, 0, np.nan], atol=1e-16
    )
    stretched = Factors(torch.diag(torch.tensor([4.0, 3.0, 3.0])).double(), torch.eye(3).double())
    gaps = [float(module_geometry([stretched, stretched], k).gap[0]) for k in (1, 2, 3, 4)]
    assert gaps == pytest.approx([0.25, 0, 1, 1], abs=1e-15)


def test_invariant_to_how_a_delta_is_factored() -> None:
    mix = torch.eye(8, dtype=torch.float64) + 0.3 * randn(8, 8, seed=9)
    f, g = factors(50, 40, 8, 1), factors(50, 40, 8, 2)
    same = module_geometry([Factors(f.b @ mix, torch.linalg.solve(mix, f.a)), g], 4)
    plain = module_geometry([f, g], 4)
    for key in ("gram", "left", "right", "u1", "v1", "gap", "singular_values"):
        np.testing.assert_allclose(getattr(same, key), getattr(plain, key), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("condition", [1e3, 1e6, 1e9, 1e13])
def test_badly_conditioned_factors_lose_no_more_than_they_must(condition: float) -> None:
    """The planted pair, one of it in factors that are nearly dependent: the product itself keeps 1e-16 x condition."""
    u, u2 = planted_pair(300, ANGLES, 12, 1)
    v, v2 = planted_pair(200, ANGLES * 0.5, 12, 2)
    sigma = SPECTRUM[:12]
    q = basis(12, 12, 5)
    scale = torch.logspace(0, -math.log10(condition), 12, dtype=torch.float64)
    mixed = Factors(u * sigma @ (q * scale), (q / scale).T @ v.T)
    others = [Factors(u2 * sigma, v2.T), factors(300, 200, 12, 7)]
    found = module_geometry([mixed, *others])
    lost = 1e-14 * condition
    np.testing.assert_allclose(found.singular_values[0], sigma, rtol=max(1e-12, lost))
    inner = float((sigma[:10] ** 2 * torch.deg2rad(ANGLES).cos() * torch.deg2rad(ANGLES * 0.5).cos()).sum())
    assert found.gram[0, 1] == pytest.approx(inner, rel=max(1e-12, lost))
    if condition < 1e12:
        # 0.01 and 0.005 degrees are small: an error in a direction is one in the angle
        np.testing.assert_allclose(found.left[0], ANGLES, atol=max(1e-9, 1e4 * lost))
        np.testing.assert_allclose(found.right[0], ANGLES * 0.5, atol=max(1e-9, 1e4 * lost))
    assert found.ranks.tolist() == [12, 12, 12]


def test_invariant_to_padding_with_zero_ranks() -> None:
    """A rank-8 delta written as rank 11: one batch holds unlike ranks, and k counts true ranks only."""
    f, g = factors(50, 40, 8, 1), factors(50, 40, 11, 2)
    padded = Factors(torch.cat([f.b, torch.zeros(50, 3)], 1), torch.cat([f.a, randn(3, 40, seed=7)]))
    plain, found = module_geometry([g, f]), module_geometry([g, padded])
    assert found.ranks.tolist() == [11, 8]
    assert found.pair_k == plain.pair_k == [8]
    np.testing.assert_allclose(found.left, plain.left, atol=1e-9)
    np.testing.assert_allclose(found.right, plain.right, atol=1e-9)
    np.testing.assert_allclose(found.gram, plain.gram, rtol=1e-12)


def test_deficient_rank_is_seen_through_rounding() -> None:
    """A rank-3 delta in rank-6 factors: singular values 4 to 6 are rounding, and do not count."""
    f, g = factors(50, 40, 3, 1), factors(50, 40, 6, 2)
    mix = randn(3, 6, seed=4)
    wide = Factors(f.b @ mix, torch.linalg.pinv(mix) @ f.a)
    found, plain = module_geometry([wide, g]), module_geometry([f, g])
    assert max(found.singular_values[0][3:]) > 0
    assert found.ranks.tolist() == [3, 6]
    assert found.pair_k == [3]
    np.testing.assert_allclose(found.left, plain.left, atol=1e-9)


def test_swapping_a_pair_and_reordering_modules() -> None:
    held = {Q.format(layer): [factors(30, 20, 4, 3 * layer + m) for m in range(2)] for layer in (0, 2, 10)}
    modules = {name: module_geometry(pair) for name, pair in held.items()}
    forth = summarise(["a", "b"], modules)
    again = summarise(["a", "b"], dict(reversed(list(modules.items()))))
    assert json.dumps(forth) == json.dumps(again)
    back = summarise(["b", "a"], {name: module_geometry(pair[::-1]) for name, pair in held.items()})
    there, here = forth["pairs"][0], back["pairs"][0]
    assert (here["a"], here["b"]) == ("b", "a")
    for key in there.keys() - {"a", "b"}:
        assert here[key] == pytest.approx(there[key], abs=1e-10)


def test_chunks_do_not_change_a_byte() -> None:
    """Each module alone, pickled as a task would send it, against all in one pass."""
    held = {Q.format(layer): [factors(64, 48, 8, 5 * layer + m) for m in range(3)] for layer in range(4)}
    whole = {name: module_geometry(f) for name, f in held.items()}
    parts = {}
    for name in reversed(held):
        parts[name] = pickle.loads(pickle.dumps(module_geometry(held[name])))
    names = ["a", "b", "c"]
    assert json.dumps(summarise(names, parts)) == json.dumps(summarise(names, whole))


def test_duplicates_and_negatives() -> None:
    f = factors(60, 50, 12, 1)
    found = summarise(["a", "same", "minus"], {Q.format(0): module_geometry([f, f, Factors(-f.b, f.a)])})
    same, minus, _ = found["pairs"]
    assert same["cosine"] == pytest.approx(1, abs=1e-14)
    assert minus["cosine"] == pytest.approx(-1, abs=1e-14)
    for entry in (same, minus):
        assert entry["orthogonal_fraction"] < 1e-6
        assert entry["angle_max_median_deg"] < 1e-10
        assert entry["u1"] == pytest.approx(1, abs=1e-14)


def test_zero_delta_is_null_and_never_nan() -> None:
    f, zero = factors(30, 20, 4, 1), Factors(torch.zeros(30, 4).double(), randn(4, 20))
    g = factors(30, 20, 4, 2)
    modules = {Q.format(0): module_geometry([f, zero]), Q.format(1): module_geometry([f, g])}
    summary = summarise(["a", "b"], modules)
    text = json.dumps(summary, allow_nan=False)
    assert "null" in text
    first, second = summary["modules"]
    assert first["cosine"] is None and first["angle_min_median_deg"] is None and first["u1"] is None
    assert first["orthogonal_fraction"] is None and first["gap_median"] is None and first["k"] is None
    assert second["cosine"] is not None
    assert summary["pairs"][0]["defined_modules"] == 1
    assert summary["pairs"][0]["angle_min_median_deg"] == second["angle_min_median_deg"]
    assert summary["adapters"][1]["zero_modules"] == 1
    expected = float(effective_rank(modules[Q.format(1)].singular_values[1]))
    assert summary["adapters"][1]["effective_rank"] == pytest.approx(expected)

    nothing = summarise(["a", "b"], {Q.format(0): module_geometry([zero, zero])})
    json.dumps(nothing, allow_nan=False)
    assert nothing["adapters"][0]["norm"] == 0
    assert nothing["adapters"][0]["effective_rank"] is None
    assert nothing["pairs"][0]["cosine"] is None


def test_rank_beyond_the_module_and_a_lone_adapter() -> None:
    """Rank 12 on a 10 x 8 module has 8 singular values; one adapter has no pair."""
    f = factors(10, 8, 12, 1)
    found = module_geometry([f])
    np.testing.assert_allclose(found.singular_values[0], np.linalg.svd((f.b @ f.a).numpy())[1], rtol=1e-12)
    summary = summarise(["a"], {Q.format(0): found})
    assert summary["pairs"] == []
    assert summary["adapters"][0]["rank"] == 8


def test_refusals() -> None:
    with pytest.raises(ValueError, match="disagree on this module's shape"):
        module_geometry([factors(10, 8, 2, 1), factors(12, 8, 2, 2)])
    with pytest.raises(ValueError, match="one adapter or more"):
        module_geometry([])
    with pytest.raises(ValueError, match="no module"):
        summarise(["a"], {})
    with pytest.raises(ValueError, match="holds 1 adapters, 2 names"):
        summarise(["a", "b"], {Q.format(0): module_geometry([factors(10, 8, 2, 1)])})


def _mixed(count: int) -> dict[str, list[Factors]]:
    """Adapters of ranks 3 and 4 at two layers, one zero, two equal but for their size."""
    modules = {}
    for layer in range(2):
        held = [factors(12, 10, 3 + i % 2, seed=100 * layer + i) for i in range(count)]
        held[2] = Factors(torch.zeros(12, 3, dtype=torch.float64), held[2].a)
        held[4] = Factors(2 * held[0].b, held[0].a)
        modules[Q.format(layer)] = held
    return modules


def test_some_pairs_alone_are_as_among_all() -> None:
    every = list(combinations(range(7), 2))
    some = np.array([(0, 1), (0, 2), (0, 4), (2, 5), (3, 6)])
    for held in _mixed(7).values():
        whole, alone = module_geometry(held, 2), module_geometry(held, 2, some)
        places = [every.index((i, j)) for i, j in some.tolist()]
        for key in ("pair_k", "left", "right", "u1", "v1", "gap"):
            np.testing.assert_allclose(getattr(alone, key), getattr(whole, key)[places], atol=1e-12)
        np.testing.assert_allclose(alone.gram, whole.gram, atol=1e-12 * whole.gram.max())
        least = module_geometry(held, 2, some, whole_gram=False).gram
        known = np.eye(7, dtype=bool)
        known[some[:, 0], some[:, 1]] = known[some[:, 1], some[:, 0]] = True
        np.testing.assert_allclose(least[known], whole.gram[known], atol=1e-12 * whole.gram.max())
        assert np.isnan(least[~known]).all()


def test_the_gram_of_many_is_the_same_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MOST_AT_ONCE", 2 * 7 * 4 * 4)  # two adapters a strip, the last one alone
    none = np.zeros((0, 2), dtype=np.int64)
    for held in _mixed(7).values():
        deltas = torch.stack([(f.b @ f.a).flatten() for f in held])
        found = module_geometry(held, 2, none)
        np.testing.assert_allclose(found.gram, (deltas @ deltas.T).numpy(), atol=1e-12 * found.gram.max())
        assert found.left.shape == (0, 2)


def test_pairs_in_detail_are_some_of_the_rows() -> None:
    names, detail = list("abcdefg"), np.array([i == 0 for i, _ in combinations(range(7), 2)])
    modules = {name: module_geometry(held, 2) for name, held in _mixed(7).items()}
    whole, some = summarise(names, modules), summarise(names, modules, None, detail)
    for key in ("layers", "projections", "modules"):
        assert some[key] == [row for row in whole[key] if row["a"] == "a"]
        del whole[key], some[key]
    assert some == whole
    for layer, held in zip(layer_grams(modules), _mixed(7).values(), strict=True):
        flat = torch.stack([(f.b @ f.a).flatten() for f in held])
        np.testing.assert_allclose(layer, (flat @ flat.T).numpy(), atol=1e-12 * layer.max())
