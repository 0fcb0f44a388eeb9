"""Floors: closed forms, the dense simulation they stand for, and the figures a reader of the study needs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Generator

from analysis.weights.chance import (
    ambient,
    expected_cosine_of_shared_b,
    expected_cosines,
    floors,
    gaussian_r,
    random_subspaces,
    shared_a,
)
from analysis.weights.geometry import module_geometry
from analysis.weights.summary import summarise
from models.adapter import Factors


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("d", [64, 1024, 4096])
def test_ambient_angles_equal_the_dense_simulation(d: int) -> None:
    """Two really drawn bases, by scipy, within four standard errors of the smallest and the largest."""
    draws, source = 40, generator(10)
    bases = torch.linalg.qr(torch.randn(2, draws, d, 10, generator=source, dtype=torch.float64)).Q.numpy()
    dense = np.rad2deg([subspace_angles(x, y)[[-1, 0]] for x, y in zip(*bases, strict=True)])
    ours = random_subspaces(d, 10, 2000, generator())[0].numpy()[:, [0, -1]]
    error = 4 * np.sqrt(dense.var(0) / draws + ours.var(0) / len(ours))
    assert (np.abs(dense.mean(0) - ours.mean(0)) < error).all()


@pytest.mark.parametrize(("d", "smallest"), [(1024, 79.87), (2560, 83.60), (4096, 84.95)])
def test_ambient_angles_at_qwen3_sizes(d: int, smallest: float) -> None:
    """The floor beside the study's top-10 angles: a largest angle near 90 degrees is what chance gives."""
    angles, _ = random_subspaces(d, 10, 500, generator())
    assert float(angles[:, 0].mean()) == pytest.approx(smallest, abs=0.15)
    assert 89.6 < float(angles[:, -1].mean()) < 89.9


@pytest.mark.parametrize(("d", "k"), [(40, 10), (16, 10), (10, 10)])
def test_overlap_of_random_subspaces_in_closed_form(d: int, k: int) -> None:
    """E sum cos^2 = k^2 / d for any d >= k: dimensions that must intersect included; E <x, y>^2 = 1 / d."""
    angles, first = random_subspaces(d, k, 4000, generator(1))
    overlap = torch.deg2rad(angles).cos().square().sum(1)
    assert float(overlap.mean()) == pytest.approx(k * k / d, rel=0.01)
    assert float(first.square().mean()) == pytest.approx(1 / d, rel=0.1)


@pytest.mark.parametrize(("rows", "columns"), [(30, 4), (3, 5)])
def test_gaussian_r_has_the_wishart_moments(rows: int, columns: int) -> None:
    """Of W = G.T G for a Gaussian G: mean rows * I, E tr(W^2) = rows * columns * (rows + columns + 1)."""
    r = gaussian_r(rows, columns, 20000, generator(2))
    gram = r.transpose(1, 2) @ r
    np.testing.assert_allclose(gram.mean(0), rows * np.eye(columns), atol=0.02 * rows)
    squares = gram.square().sum((1, 2)).mean()
    assert float(squares) == pytest.approx(rows * columns * (rows + columns + 1), rel=0.02)


def test_shared_a_equals_the_dense_simulation() -> None:
    """Really drawn B on one A, measured by the geometry itself."""
    a = torch.randn(12, 48, generator=generator(3), dtype=torch.float64) * torch.linspace(2, 0.5, 12)[:, None]
    source, draws = generator(4), 300
    dense = []
    for _ in range(draws):
        pair = [Factors(torch.randn(40, 12, generator=source, dtype=torch.float64), a) for _ in range(2)]
        found = module_geometry(pair, 5)
        dense.append([found.left[0][0], found.left[0][-1], found.right[0][0], found.right[0][-1], found.v1[0]])
    drawn = shared_a(a, 40, 5, draws, generator(5))
    ours = torch.stack(
        [drawn["left"][:, 0], drawn["left"][:, -1], drawn["right"][:, 0], drawn["right"][:, -1], drawn["v1"]],
        1,
    )
    expected = np.array(dense)
    error = 4 * np.sqrt(expected.var(0) / draws + ours.numpy().var(0) / draws)
    assert (np.abs(expected.mean(0) - ours.numpy().mean(0)) < error).all()


def test_unrelated_subspaces_of_one_row_space() -> None:
    """The study's figure: 10 of 32 dimensions at random: smallest angle 27 degrees, |<v1, v1'>| .15."""
    angles, first = random_subspaces(32, 10, 500, generator(6))
    assert float(angles[:, 0].median()) == pytest.approx(27, abs=1)
    assert float(first.mean()) == pytest.approx(0.14, abs=0.015)


def test_cosine_floors_against_stacked_dense_deltas() -> None:
    shapes, source = [(24, 16), (12, 16), (16, 24)], generator(7)
    fixed = [torch.randn(4, in_, generator=source) for _, in_ in shapes]
    squares: dict[str, list[float]] = {"ambient": [], "shared_a": []}
    for kind, found in squares.items():
        for _ in range(1500):
            inner, norms = 0.0, [0.0, 0.0]
            for (out, in_), a in zip(shapes, fixed, strict=True):
                both = [a, a] if kind == "shared_a" else [torch.randn(4, in_, generator=source) for _ in range(2)]
                x, y = (torch.randn(out, 4, generator=source) @ each for each in both)
                inner += float((x * y).sum())
                norms = [norms[0] + float(x.square().sum()), norms[1] + float(y.square().sum())]
            found.append(inner**2 / (norms[0] * norms[1]))
    expected = expected_cosines([(out, in_, a @ a.T) for (out, in_), a in zip(shapes, fixed, strict=True)])
    for kind, found in squares.items():
        assert expected[kind] == pytest.approx(math.sqrt(np.mean(found)), rel=0.1)


def test_floors_of_a_tiny_study() -> None:
    """Keys as in a pair, the same draw for the same seed, and what the shared A is for."""
    source = generator(8)
    modules = {
        f"model.layers.{layer}.self_attn.{name}": Factors(
            torch.zeros(out, 16, dtype=torch.float64),
            torch.randn(16, in_, generator=source, dtype=torch.float64),
        )
        for layer in range(4)
        for name, out, in_ in (
            ("q_proj", 128, 128),
            ("k_proj", 64, 128),
            ("v_proj", 64, 128),
            ("o_proj", 128, 128),
        )
    }
    found = floors(modules, generator=generator(9))
    assert found == floors(dict(reversed(list(modules.items()))), generator=generator(9))
    pair = summarise(["a", "b"], {"m.0.q": module_geometry([Factors(torch.eye(4), torch.eye(4))] * 2)})["pairs"][0]
    assert set(found["ambient"]) == set(found["shared_a"]) < set(pair)
    assert found["shared_a"]["v1"] > 2 * found["ambient"]["v1"]
    assert found["shared_a"]["right_angle_min_median_deg"] < found["ambient"]["right_angle_min_median_deg"] - 20
    assert found["shared_a"]["angle_min_median_deg"] == pytest.approx(found["ambient"]["angle_min_median_deg"], abs=2)


def test_edges() -> None:
    """k falls to the rank; a module whose A is zero is left out; nothing left is null."""
    assert ambient(20, 30, 3, 5, generator())["right"].shape == (5, 3)
    a = torch.randn(2, 9, generator=generator(), dtype=torch.float64)
    zero = Factors(torch.zeros(6, 2).double(), torch.zeros(2, 9).double())
    alone = floors({"a": Factors(torch.zeros(6, 2), a)}, generator=generator())
    assert floors({"a": Factors(torch.zeros(6, 2), a), "z": zero}, generator=generator()) == alone
    nothing = floors({"z": zero}, generator=generator())
    json.dumps(nothing, allow_nan=False)
    assert set(nothing["ambient"].values()) == {None}


def test_a_shared_b_equals_the_dense_simulation() -> None:
    """Really drawn A on one B, measured by the geometry itself: the output side is shared, the input side is not."""
    source, draws = generator(4), 200
    b = torch.randn(48, 12, generator=generator(3), dtype=torch.float64) * torch.linspace(2, 0.5, 12)
    dense = []
    for _ in range(draws):
        pair = [Factors(b, torch.randn(12, 40, generator=source, dtype=torch.float64)) for _ in range(2)]
        found = summarise(["a", "b"], {"m.0.q": module_geometry(pair, 5)})["pairs"][0]
        dense.append([found[key] for key in ("angle_min_median_deg", "right_angle_min_median_deg", "u1", "v1")])
    trained = Factors(b, torch.randn(12, 40, generator=source, dtype=torch.float64))
    found = floors({"m.0.q": trained}, 5, generator=generator(5), draws=draws, start="b")
    ours = [found["shared_a"][key] for key in ("angle_min_median_deg", "right_angle_min_median_deg", "u1", "v1")]
    expected = np.array(dense)
    assert (np.abs(expected.mean(0) - ours) < 4 * np.sqrt(2 * expected.var(0) / draws)).all()
    assert found["shared_a"]["u1"] > 2 * found["shared_a"]["v1"]
    assert found["ambient"]["cosine"] == pytest.approx(expected_cosines([(40, 48, b.T @ b)])["ambient"])


def test_cosine_of_a_shared_b_in_an_inner_product() -> None:
    """Two modules with inputs of unlike second moments, against drawn A; with S = 1 it is the mirror of a shared A."""
    source = generator(7)
    held, squares = [], []
    for out, in_ in ((24, 16), (12, 30)):
        root = torch.randn(in_, in_, generator=source, dtype=torch.float64) * torch.linspace(2, 0.1, in_)
        held.append((torch.randn(out, 4, generator=source, dtype=torch.float64), root @ root.T))
    for _ in range(3000):
        inner, norms = 0.0, [0.0, 0.0]
        for b, s in held:
            x, y = (b @ torch.randn(4, len(s), generator=source, dtype=torch.float64) for _ in range(2))
            inner += float(((x @ s) * y).sum())
            norms = [norm + float(((d @ s) * d).sum()) for norm, d in zip(norms, (x, y), strict=True)]
        squares.append(inner**2)
        norms_product = norms[0] * norms[1]
        squares[-1] /= norms_product
    found = expected_cosine_of_shared_b([(b.T @ b, float(s.trace()), float((s @ s).trace())) for b, s in held])
    assert found == pytest.approx(math.sqrt(np.mean(squares)), rel=0.1)
    plain = expected_cosine_of_shared_b([(b.T @ b, len(s), len(s)) for b, s in held])
    assert plain == pytest.approx(expected_cosines([(len(s), len(b), b.T @ b) for b, s in held])["shared_a"])
    assert expected_cosine_of_shared_b([(torch.zeros(2, 2), 3.0, 1.0)]) is None
