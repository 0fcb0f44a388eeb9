"""Weighted inner products against the second moment of captured inputs, formed in full; edges and invariances."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from analysis.function import activations
from analysis.function.activations import (
    every_input,
    gram_of_moment,
    input_moments,
    input_products,
    random_rows,
    summarise_activations,
    weighted_gram,
)
from analysis.function.forward import completion_hidden
from analysis.weights.modules import projection_of
from models.adapter import Factors
from models.logprobs import Row
from tests.conftest import Agreement

ROWS = [([5, 9, 3], [20, 21, 1]), ([7, 8, 30, 12, 3], [1]), ([11, 3], []), ([4, 3], [50, 51, 52, 53, 1])]
SHAPES = {
    "model.layers.0.self_attn.q_proj": (64, 64),
    "model.layers.1.self_attn.k_proj": (32, 64),
    "model.layers.1.mlp.down_proj": (64, 96),
}
QUERY = "model.layers.0.self_attn.q_proj"
RANKS = (4, 4, 6)
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def exact(tiny_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def factors(out: int, in_: int, rank: int, seed: int) -> Factors:
    return Factors(randn(out, rank, seed=seed), randn(rank, in_, seed=seed + 1000))


@pytest.fixture(scope="module")
def adapters() -> list[dict[str, Factors]]:
    return [
        {name: factors(*shape, rank, 10 * at + m) for at, (name, shape) in enumerate(SHAPES.items())}
        for m, rank in enumerate(RANKS)
    ]


def inputs(model: PreTrainedModel, name: str, rows: Sequence[Row] = ROWS) -> np.ndarray:
    """The module's n x in counted inputs, a row at a time without padding."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _m, args, _o: seen.append(args[0][0]))
    for prompt, completion in rows:
        with torch.inference_mode():
            model(torch.tensor([[*prompt, *completion]]))
        seen[-1] = seen[-1][len(prompt) - 1 : len(prompt) + len(completion) - 1]
    handle.remove()
    return torch.cat(seen).double().numpy()


def dense_gram(x: np.ndarray, held: Sequence[Factors]) -> list[list[float]]:
    """tr(dW S dW'.T) with every matrix formed."""
    second_moment = x.T @ x / len(x)
    deltas = [(f.b.double() @ f.a.double()).numpy() for f in held]
    return [[float(np.trace(one @ second_moment @ two.T)) for two in deltas] for one in deltas]


def grams(
    model: PreTrainedModel, adapters: list[dict[str, Factors]], **options: object
) -> dict[str, list[list[float]]]:
    products, _ = input_products(model, ROWS, adapters, list(SHAPES), **options)  # type: ignore[arg-type]
    return {name: weighted_gram(products[name], [own[name] for own in adapters]) for name in SHAPES}


def test_agreement_with_the_dense_second_moment(
    model: PreTrainedModel, exact: PreTrainedModel, adapters: list[dict[str, Factors]], agreement: Agreement
) -> None:
    for base, kind, limit in ((exact, "float64", 1e-12), (model, "float32", 2e-6)):
        found, n = input_products(base, ROWS, adapters, list(SHAPES), 2)
        assert n == 9
        for name in SHAPES:
            x = inputs(base, name)
            assert len(x) == n
            held = [own[name] for own in adapters]
            z = x @ np.concatenate([f.a.numpy() for f in held]).T
            label = f"activations: {kind}, {projection_of(name)}"
            agreement(f"{label}, products", found[name], z.T @ z / n, limit)
            gram = weighted_gram(found[name], held)
            agreement(f"{label}, dense S", gram, dense_gram(x, held), limit)


def test_agreement_of_the_summary_with_the_outputs_changes(
    exact: PreTrainedModel, adapters: list[dict[str, Factors]], agreement: Agreement
) -> None:
    """The changes dW x at every token and module, as one long vector an adapter."""
    found = summarise_activations(NAMES, grams(exact, adapters), 9)

    def changes(m: int, names: Sequence[str]) -> np.ndarray:
        held = [inputs(exact, name) @ (adapters[m][name].b @ adapters[m][name].a).numpy().T for name in names]
        return np.concatenate([change.ravel() for change in held])

    def cosine(i: int, j: int, names: Sequence[str]) -> float:
        x, y = changes(i, names), changes(j, names)
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    every, pairs = list(SHAPES), [(0, 1), (0, 2), (1, 2)]
    norms = [np.linalg.norm(changes(m, every)) / 3 for m in range(3)]  # the root of 9 tokens
    agreement("activations: norms", [entry["norm"] for entry in found["adapters"]], norms, 1e-12)
    for key, parts in (
        ("pairs", [every]),
        ("layers", [every[:1], every[1:]]),
        ("projections", [every[2:], every[1:2], every[:1]]),
    ):
        expected = [cosine(i, j, part) for i, j in pairs for part in parts]
        agreement(f"activations: cosines, {key}", [entry["cosine"] for entry in found[key]], expected, 1e-12)
    assert [(e["a"], e["b"]) for e in found["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [e["layer"] for e in found["layers"][:2]] == [0, 1]
    assert [e["projection"] for e in found["projections"][:3]] == ["down_proj", "k_proj", "q_proj"]
    assert (found["tokens"], [e["name"] for e in found["adapters"]]) == (9, NAMES)


def test_padding_and_batches_do_not_matter(model: PreTrainedModel, adapters: list[dict[str, Factors]]) -> None:
    whole, single = grams(model, adapters, batch_size=8), grams(model, adapters, batch_size=1)
    for name in SHAPES:
        scale = np.abs(single[name]).max()
        np.testing.assert_allclose(np.array(whole[name]) / scale, np.array(single[name]) / scale, rtol=0, atol=1e-6)
    assert grams(model, adapters, batch_size=8) == whole
    assert not model.get_submodule(QUERY)._forward_pre_hooks


def test_the_counted_tokens_are_those_that_forward_scores(model: PreTrainedModel) -> None:
    _, tokens = input_products(model, ROWS, [{QUERY: factors(64, 64, 2, 1)}], [QUERY])
    assert tokens == sum(len(states) for states in completion_hidden(model, ROWS))


def test_invariant_to_how_a_delta_is_factored(exact: PreTrainedModel, adapters: list[dict[str, Factors]]) -> None:
    mix = torch.eye(4, dtype=torch.float64) + 0.3 * randn(4, 4, seed=9)
    mixed = {name: Factors(f.b @ mix, torch.linalg.solve(mix, f.a)) for name, f in adapters[0].items()}
    plain, found = grams(exact, adapters), grams(exact, [mixed, *adapters[1:]])
    for name in SHAPES:
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-9, atol=1e-9 * np.abs(plain[name]).max())


def test_unrelated_a_with_one_action_on_the_inputs(exact: PreTrainedModel, model: PreTrainedModel) -> None:
    """A layer 0 input depends on its token alone, so the 7 that these rows count span 7 of 64 dimensions. The second
    delta is the first one plus a large part that annihilates them, factored anew: other entries, the same action."""
    x = torch.from_numpy(inputs(exact, QUERY))
    assert torch.linalg.matrix_rank(x) == 7
    span = torch.linalg.svd(x, full_matrices=False).Vh[:7]
    first = factors(64, 64, 8, 1)
    outside = 5 * randn(8, 64, seed=3)
    mix = randn(8, 8, seed=4)
    a = first.a + outside - outside @ span.T @ span
    second = Factors(first.b @ mix, torch.linalg.solve(mix, a))
    held = [{QUERY: first}, {QUERY: second}]

    def cosine(products: Tensor) -> float:
        gram = weighted_gram(products, [first, second])
        return summarise_activations(["a", "b"], {QUERY: gram}, 9)["pairs"][0]["cosine"]

    stacked = torch.cat([first.a, second.a])
    assert cosine(stacked @ stacked.T) < 0.3
    assert cosine(input_products(exact, ROWS, held, [QUERY])[0][QUERY]) == pytest.approx(1, abs=1e-12)
    assert cosine(input_products(model, ROWS, held, [QUERY])[0][QUERY]) == pytest.approx(1, abs=1e-8)


def test_agreement_of_an_identity_with_the_plain_inner_product(agreement: Agreement) -> None:
    held = [factors(20, 30, rank, seed) for seed, rank in enumerate(RANKS)]
    stacked = torch.cat([f.a for f in held])
    deltas = [(f.b @ f.a).numpy() for f in held]
    expected = [[np.sum(one * two) for two in deltas] for one in deltas]
    agreement("activations: S = 1, plain Gram", weighted_gram(stacked @ stacked.T, held), expected, 1e-13)


def test_a_zero_delta_has_no_cosine_and_equal_ones_stay_at_one(model: PreTrainedModel) -> None:
    own = factors(64, 64, 4, 1)
    zero, tenfold = Factors(torch.zeros(64, 4).double(), own.a), Factors(-10 * own.b, own.a)
    held = [{QUERY: f} for f in (own, zero, own, tenfold)]
    products, tokens = input_products(model, ROWS, held, [QUERY])
    gram = weighted_gram(products[QUERY], [f[QUERY] for f in held])
    found = summarise_activations(["a", "zero", "same", "minus"], {QUERY: gram}, tokens)
    cosines = [entry["cosine"] for entry in found["pairs"]]
    assert [cosines[k] for k in (0, 3, 4)] == [None] * 3
    assert [cosines[k] for k in (1, 2, 5)] == pytest.approx([1, -1, -1], abs=1e-12)
    assert all(abs(value) <= 1 for value in cosines if value is not None)
    assert found["adapters"][1]["norm"] == 0
    assert found["adapters"][3]["norm"] == pytest.approx(10 * found["adapters"][0]["norm"])
    json.dumps(found, allow_nan=False)


def test_the_order_of_modules_changes_no_byte(model: PreTrainedModel, adapters: list[dict[str, Factors]]) -> None:
    held = grams(model, adapters)
    again = dict(reversed(held.items()))
    assert json.dumps(summarise_activations(NAMES, held, 9)) == json.dumps(summarise_activations(NAMES, again, 9))


def test_refusals(model: PreTrainedModel) -> None:
    own = factors(64, 64, 2, 1)

    def products(rows: Sequence[Row] = ROWS, name: str = QUERY, held: Factors = own, **options: object) -> None:
        input_products(model, rows, [{name: held}], [name], **options)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="no token to count in 0 rows"):
        products([])
    with pytest.raises(ValueError, match="no token to count in 1 rows: every completion is empty"):
        products([([3], [])])
    with pytest.raises(ValueError, match="row 1: the prompt is empty"):
        products([([3], [4]), ([], [4])])
    with pytest.raises(ValueError, match=r"module model\.layers\.7.* is not in Qwen3ForCausalLM"):
        products(name="model.layers.7.self_attn.q_proj")
    with pytest.raises(ValueError, match="is a Qwen3RMSNorm"):
        products(name="model.norm")
    with pytest.raises(ValueError, match=r"the delta is \(64, 3\), the weight \(64, 64\)"):
        products(held=factors(64, 3, 2, 1))
    with pytest.raises(ValueError, match="NaN or inf in its inputs"):
        products(held=Factors(own.b, own.a * math.inf))
    with pytest.raises(ValueError, match="is not in adapter 1"):
        input_products(model, ROWS, [{QUERY: own}, {}], [QUERY])
    with pytest.raises(ValueError, match="0 adapters, 1 modules"):
        input_products(model, ROWS, [], [QUERY])
    with pytest.raises(ValueError, match=r"products of shape \(3, 3\) for factors of ranks \[2\]"):
        weighted_gram(torch.eye(3), [own])
    with pytest.raises(ValueError, match="no module"):
        summarise_activations(["a"], {}, 9)
    with pytest.raises(ValueError, match="holds 1 adapters, 2 names"):
        summarise_activations(["a", "b"], {QUERY: [[1.0]]}, 9)
    assert not model.get_submodule(QUERY)._forward_pre_hooks
    model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            products()
    finally:
        model.eval()


class Routed(nn.Module):
    """Like a mixture of experts: the linear module sees some of the tokens, the others pass by."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        return torch.cat([self.linear(flat[:2]), flat[2:] @ self.linear.weight.T]).view(*x.shape[:-1], -1)


def test_a_module_that_only_some_tokens_reach_is_left_out(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    mlp = model.get_submodule("model.layers.1.mlp")
    mlp.down_proj = Routed(mlp.down_proj)
    expert = "model.layers.1.mlp.down_proj.linear"
    held = {QUERY: factors(64, 64, 2, 1), expert: factors(64, 96, 2, 2)}
    found, tokens = input_products(model, ROWS, [held], [QUERY, expert])
    assert list(found) == [QUERY] and tokens == 9


def test_moments_of_the_inputs_from_random_rows(exact: PreTrainedModel) -> None:
    """Against the full second moment, over many draws; the rows of one draw are those of its seed."""
    held = factors(64, 64, 4, 1)
    x = inputs(exact, QUERY)
    second = x.T @ x / len(x)
    expected = np.trace(second), np.trace(second @ second)
    found = []
    for seed in range(20):
        drawn = [{QUERY: one} for one in random_rows(held, 64, seed)]
        assert torch.equal(drawn[1][QUERY].a, random_rows(held, 64, seed)[1].a)
        found.append(input_moments(input_products(exact, ROWS, drawn, [QUERY])[0][QUERY]))
    np.testing.assert_allclose(np.mean(found, axis=0), expected, rtol=0.15)


@pytest.mark.parametrize("at_once", [2**24, 1])
def test_the_moment_of_the_inputs_gives_the_same_gram(
    exact: PreTrainedModel, adapters: list[dict[str, Factors]], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(activations, "MOST_AT_ONCE", at_once)  # all adapters in one strip, and each in its own
    products, tokens = input_products(exact, ROWS, adapters, list(SHAPES))
    moments, counted = input_products(exact, ROWS, [{m: every_input(adapters[0][m]) for m in SHAPES}], list(SHAPES))
    assert tokens == counted
    for module, (_, width) in SHAPES.items():
        held = [adapter[module] for adapter in adapters]
        assert moments[module].shape == (width, width)
        found = torch.tensor(gram_of_moment(moments[module], held))
        torch.testing.assert_close(found, torch.tensor(weighted_gram(products[module], held)), rtol=1e-9, atol=1e-9)


def test_some_pairs_are_those_of_all() -> None:
    x = randn(3, 5, seed=0)
    grams = {module: (x @ x.T * (i + 1)).tolist() for i, module in enumerate(SHAPES)}
    whole = summarise_activations(NAMES, grams, 7)
    some = summarise_activations(NAMES, grams, 7, [(0, 1), (1, 2)], [(1, 2)])
    assert some["pairs"] == [row for row in whole["pairs"] if row["b"] != "c" or row["a"] != "a"]
    for key in ("layers", "projections"):
        assert some[key] == [row for row in whole[key] if (row["a"], row["b"]) == ("b", "c")]
    assert (some["gram"], some["adapters"]) == (whole["gram"], whole["adapters"])
