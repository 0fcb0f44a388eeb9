"""Paths between two deltas: dense merges are the oracle; barriers by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from analysis.function.connectivity import barrier, between, interpolate, token_mean
from analysis.function.forward import attached, completion_nll
from models.adapter import Factors, load_factors

ROWS = [([5, 9, 3], [20, 21, 1]), ([7, 8, 30, 12, 3], [1, 14]), ([4, 3], [50, 51, 52, 53, 1])]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture(scope="module")
def ends(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, write_adapter: Callable[..., Path]
) -> tuple[dict[str, Factors], dict[str, Factors]]:
    folder = tmp_path_factory.mktemp("ends")
    return (
        load_factors(write_adapter(folder / "a", tiny_model, seed=1, scale=2.0)),
        load_factors(write_adapter(folder / "b", tiny_model, seed=2, rank=4, scale=2.0)),
    )


def loss(model: PreTrainedModel, delta: dict[str, Factors]) -> float:
    with attached(model, delta):
        return token_mean(completion_nll(model, ROWS))


def test_path_equals_dense_merges(model: PreTrainedModel, ends: tuple) -> None:
    a, b = ends
    weights = [0, 0.25, 1]
    losses = [loss(model, between(a, b, weight)) for weight in weights]
    for weight, found in zip(weights, losses, strict=True):
        merged = copy.deepcopy(model)
        with torch.no_grad():
            for name in a:
                dense = weight * (a[name].b @ a[name].a) + (1 - weight) * (b[name].b @ b[name].a)
                merged.get_submodule(name).weight += dense.float()
        assert found == pytest.approx(token_mean(completion_nll(merged, ROWS)), abs=1e-4)
    assert len({round(found, 3) for found in losses}) == 3


def test_ends_are_the_adapters_themselves(model: PreTrainedModel, ends: tuple) -> None:
    """To the bit, so that ends may be computed once a model; an empty mapping is the base."""
    a, b = ends
    for weight, end in ((1, a), (0, b)):
        assert loss(model, between(a, b, weight)) == loss(model, end)
    assert loss(model, between(a, {}, 0)) == token_mean(completion_nll(model, ROWS))


def test_interpolation_is_exact_and_of_rank_2r() -> None:
    generator = torch.Generator().manual_seed(0)
    f = Factors(torch.randn(9, 3, generator=generator), torch.randn(3, 7, generator=generator))
    g = Factors(torch.randn(9, 2, generator=generator), torch.randn(2, 7, generator=generator))
    found = interpolate(f, g, 0.3)
    assert found.a.shape == (5, 7)
    torch.testing.assert_close(found.b @ found.a, 0.3 * f.b @ f.a + 0.7 * g.b @ g.a)


def test_modules_of_one_side_only() -> None:
    f, g = Factors(torch.ones(3, 1), torch.ones(1, 2)), Factors(torch.ones(3, 2), torch.ones(2, 2))
    found = between({"x": f, "y": f}, {"y": g, "z": g}, 0.25)
    assert list(found) == ["x", "y", "z"]
    assert torch.equal(found["x"].b @ found["x"].a, torch.full((3, 2), 0.25))
    assert torch.equal(found["y"].b @ found["y"].a, torch.full((3, 2), 0.25 + 0.75 * 2))
    assert torch.equal(found["z"].b @ found["z"].a, torch.full((3, 2), 1.5))


def test_barrier_by_hand() -> None:
    """Line from 4 (weight 0) to 2 (weight 1): at .5 it is 3, at .25 it is 3.5. Excess 1.0 and .25."""
    assert barrier([0, 0.25, 0.5, 1], [4, 3.75, 4.0, 2]) == pytest.approx(1.0)
    assert barrier([1, 0.5, 0], [2, 4.0, 4]) == pytest.approx(1.0)
    assert barrier([0, 0.5, 1], [4, 2.5, 2]) == 0
    assert barrier([0, 0.5, 1], [4, math.nan, 2]) is None
    assert barrier([0, 0.5, 1], [4, 3, math.inf]) is None
    with pytest.raises(ValueError, match="0 and 1 among them"):
        barrier([0.5, 1], [1, 2])
    with pytest.raises(ValueError, match="got 1 at"):
        barrier([0, 1], [1])


def test_token_mean_weighs_tokens_not_rows() -> None:
    assert token_mean([(6.0, 3), (1.0, 1), (0.0, 0)]) == 7 / 4
    with pytest.raises(ValueError, match="no completion token"):
        token_mean([(0.0, 0)])
