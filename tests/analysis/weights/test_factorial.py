"""The analysis of variance of a factorial against planted effects, least squares on the vectors, and statsmodels."""

from __future__ import annotations

import json
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.weights.factorial import distances, factorial_variance, jackknife
from analysis.weights.gram import variance
from tests.conftest import Agreement

LEVELS = {"method": ["sft", "dft", "dpo"], "rate": [1e-6, 3e-6], "init": [1, 2], "order": [7, 8]}
MAINS = list(LEVELS)
PAIRS = [f"{one}:{two}" for one, two in combinations(LEVELS, 2)]


def crossing(levels: dict[str, list], replicates: int = 1) -> dict[str, list]:
    """The levels of every cell of a complete crossing."""
    cells = [cell for cell in product(*levels.values()) for _ in range(replicates)]
    return {name: [cell[k] for cell in cells] for k, name in enumerate(levels)}


def kept(factors: dict[str, list], places: list[int]) -> dict[str, list]:
    return {name: [levels[k] for k in places] for name, levels in factors.items()}


def dense(m: int, d: int = 60, seed: int = 0) -> np.ndarray:
    """M x D deltas of unlike norms with a common part."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(m, d)) + generator.normal(size=d)) * np.geomspace(1, 9, m)[:, None]


def planted(factors: dict[str, list], sizes: dict[str, float], d: int = 80) -> np.ndarray:
    """A sum of effects in orthogonal directions, each of a given sum of squares, beside a common mean."""
    generator = np.random.default_rng(4)
    m = len(next(iter(factors.values())))
    axes = np.linalg.qr(generator.normal(size=(d, d)))[0]
    x, at = 3 * np.ones((m, 1)) * axes[:1], 1
    for name, size in sizes.items():
        part = np.ones((m, 1))
        for factor in name.split(":"):
            codes = np.unique([str(level) for level in factors[factor]], return_inverse=True)[1]
            contrasts = np.eye(codes.max() + 1)[:, 1:] - 1 / (codes.max() + 1)
            part = (part[:, :, None] * contrasts[codes][:, None, :]).reshape(m, -1)
        effect = part @ axes[at : at + part.shape[1]]
        x, at = x + effect * np.sqrt(size / (effect**2).sum()), at + part.shape[1]
    return x


def dummies(factors: dict[str, list], terms: list[str]) -> np.ndarray:
    """A column of ones, and for each term one column per combination of levels."""
    m = len(next(iter(factors.values())))
    columns = [np.ones(m)]
    for term in terms:
        own = list(zip(*(factors[name] for name in term.split(":")), strict=True))
        columns += [np.array([cell == level for cell in own], dtype=float) for level in dict.fromkeys(own)]
    return np.stack(columns, axis=1)


def least_squares(x: np.ndarray, factors: dict[str, list], terms: list[str]) -> tuple[float, int]:
    """Residual sum of squares and rank of the least-squares fit of the vectors."""
    columns = dummies(factors, terms)
    fit, _, rank, _ = np.linalg.lstsq(columns, x, rcond=1e-10)
    return float(((x - columns @ fit) ** 2).sum()), int(rank)


def type_two(x: np.ndarray, factors: dict[str, list], terms: list[str]) -> dict[str, tuple[float, int]]:
    """Sum of squares and degrees of freedom of each term and of the residual."""
    result = {}
    for term in terms:
        below = [other for other in terms if not set(other.split(":")) >= set(term.split(":"))]
        (without, few), (fitted, more) = (least_squares(x, factors, model) for model in (below, [*below, term]))
        result[term] = without - fitted, more - few
    rest, rank = least_squares(x, factors, terms)
    return result | {"residual": (rest, len(x) - rank)}


def rows(found: dict) -> dict[str, dict]:
    return {**found["terms"], "residual": found["residual"]}


def test_planted_sums_of_squares_of_a_balanced_design(agreement: Agreement) -> None:
    factors = crossing(LEVELS)
    sizes = dict(zip([*MAINS, *PAIRS], np.geomspace(40, 1e-3, 10).tolist(), strict=True))
    rest = {"method:rate:init": 0.3, "method:rate:init:order": 0.2}
    x = planted(factors, sizes | rest)
    found = factorial_variance(x @ x.T, factors, permutations=0)
    assert list(found["terms"]) == [*MAINS, *PAIRS]
    for name, size in sizes.items():
        assert found["terms"][name]["sum_squares"] == pytest.approx(size, rel=1e-10)
    agreement("factorial: planted", [row["sum_squares"] for row in rows(found).values()], [*sizes.values(), 0.5], 1e-12)
    assert [row["df"] for row in rows(found).values()] == [2, 1, 1, 1, 2, 2, 2, 1, 1, 1, 9]
    assert sum(row["sum_squares"] for row in rows(found).values()) == pytest.approx(found["total"], rel=1e-13)
    assert sum(row["share"] for row in rows(found).values()) == pytest.approx(1, rel=1e-13)
    assert (found["balanced"], found["overlap"], found["aliased"], found["dropped"]) == (True, 0, [], [])
    assert found["terms"]["method"]["f"] == pytest.approx((40 / 2) / (0.5 / 9))
    assert found["terms"]["method"]["chance"] == 2 / 23


UNBALANCED = kept(crossing(LEVELS), [0, 0, 0, 1, 2, 3, 3, *range(4, 24), 23, 10])
MISSING = kept(crossing(LEVELS), [k for k in range(24) if k not in (0, 1, 2, 3, 9, 17)])  # no ("sft", 1e-6)
DESIGNS = {
    "balanced": (crossing(LEVELS), None),
    "replicates": (crossing({"method": list("abc"), "rate": [1, 2]}, 3), None),
    "unbalanced": (UNBALANCED, None),
    "missing": (MISSING, None),
    "main effects": (MISSING, MAINS),
    "three ways": (UNBALANCED, [*MAINS, *PAIRS, "method:rate:init"]),
    "one at a time": (kept(crossing(LEVELS), [0, 1, 2, 4, 8, 12, 16, 17, 20]), MAINS),
}


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("design", DESIGNS)
def test_agreement_with_least_squares_on_the_vectors(design: str, unit: bool, agreement: Agreement) -> None:
    factors, terms = DESIGNS[design]
    x = dense(len(next(iter(factors.values()))))
    found = factorial_variance(x @ x.T, factors, terms, unit=unit, permutations=0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x
    expected = type_two(x, factors, list(found["terms"]))
    assert {name: row["df"] for name, row in rows(found).items()} == {name: df for name, (_, df) in expected.items()}
    sums = [row["sum_squares"] for row in rows(found).values()]
    agreement(f"factorial: {design}, unit {unit}", sums, [size for size, _ in expected.values()], 1e-12)
    total = float(((x - x.mean(0)) ** 2).sum())
    assert found["total"] == pytest.approx(total)
    assert found["overlap"] == pytest.approx(total - sum(sums), abs=1e-10 * total)
    assert found["balanced"] == (design in ("balanced", "replicates"))


def test_agreement_with_statsmodels_in_one_dimension(agreement: Agreement) -> None:
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    x = dense(len(UNBALANCED["method"]), 1)
    table = pandas.DataFrame({**UNBALANCED, "x": x[:, 0]})
    expected = anova_lm(ols("x ~ (C(method) + C(rate) + C(init) + C(order)) ** 2", table).fit(), typ=2)
    found = factorial_variance(x @ x.T, UNBALANCED, permutations=0)
    names = {":".join(f"C({part})" for part in name.split(":")): name for name in found["terms"]}
    for key, column in (("sum_squares", "sum_sq"), ("df", "df"), ("f", "F")):
        ours = [found["terms"][name][key] for name in names.values()]
        agreement(f"factorial: statsmodels, {key}", ours, expected.loc[list(names), column], 1e-10)


def test_one_factor_is_the_one_way_analysis() -> None:
    x, labels = dense(7), list("aabbbcc")
    found, one_way = factorial_variance(x @ x.T, {"method": labels}), variance(x @ x.T, labels)
    term = found["terms"]["method"]
    assert [term[key] for key in ("sum_squares", "share", "chance", "f")] == pytest.approx(
        [one_way[key] for key in ("between", "between_share", "between_chance", "f")]
    )
    assert [term[key] for key in ("p", "permutations", "enumerated", "df")] == [
        one_way[key] for key in ("p", "relabellings", "exact", "between_df")
    ]


def test_without_replicates_the_interaction_is_the_error() -> None:
    """0, 2 over 1, 5: row means 1 and 3 (4 x 1), column means .5 and 3.5 (4 x 1.5^2), and 1 of 14 is left."""
    x = np.array([[0.0], [2], [1], [5]])
    found = factorial_variance(x @ x.T, {"row": [0, 0, 1, 1], "column": [0, 1, 0, 1]}, permutations=0)
    assert [row["sum_squares"] for row in rows(found).values()] == pytest.approx([4, 9, 1, None])
    assert [row["f"] for row in found["terms"].values()] == pytest.approx([4, 9, None])
    assert [row["error_df"] for row in found["terms"].values()] == [1, 1, 0]
    assert all(row["component"] is None for row in rows(found).values())


def test_what_cannot_be_told_apart_is_named() -> None:
    x = dense(12)
    levels = crossing({"method": list("abc"), "order": [1, 2]}, 2)
    twins = levels | {"loss": [label.upper() for label in levels["method"]], "base": [0] * 12}
    found = factorial_variance(x @ x.T, twins, permutations=99, generator=np.random.default_rng(0))
    assert (found["dropped"], found["levels"]) == (["base"], {"method": 3, "order": 2, "loss": 3})
    assert found["aliased"] == ["method", "loss", "method:order", "order:loss"]
    empty = found["terms"]["method"]
    assert (empty.pop("df"), empty.pop("full_df"), empty.pop("permutations"), empty.pop("enumerated")) == (
        0,
        2,
        0,
        False,
    )
    assert set(empty.values()) == {None}
    # What neither of the twins explains beyond the other is the overlap.
    alone = factorial_variance(x @ x.T, levels, permutations=0)
    shared = alone["terms"]["method"]["sum_squares"] + alone["terms"]["method:order"]["sum_squares"]
    assert found["overlap"] == pytest.approx(shared)
    assert found["residual"]["sum_squares"] == pytest.approx(alone["residual"]["sum_squares"])
    # A half fraction: c is a:b, which therefore adds nothing to the main effects and is no term.
    half = {"a": [0, 0, 1, 1] * 2, "b": [0, 1, 0, 1] * 2, "c": [0, 1, 1, 0] * 2}
    assert list(factorial_variance(x[:8] @ x[:8].T, half, permutations=0)["terms"]) == ["a", "b", "c"]
    partly = factorial_variance(x[:11] @ x[:11].T, kept(crossing(LEVELS), list(range(11))), permutations=0)
    assert partly["levels"]["method"] == 2
    lost = {name: (row["df"], row["full_df"]) for name, row in partly["terms"].items() if row["df"] < row["full_df"]}
    assert (partly["aliased"], lost) == ([], {})
    thin = factorial_variance(x[:6] @ x[:6].T, {"a": list("aabbcc"), "b": [1, 2, 1, 2, 2, 2]}, permutations=0)
    assert (thin["terms"]["a:b"]["df"], thin["terms"]["a:b"]["full_df"]) == (1, 2)


def test_zero_deltas_and_where_nothing_is_left() -> None:
    x, factors = dense(24), crossing(LEVELS)
    x[[3, 10]] = 0
    found = factorial_variance(x @ x.T, factors, unit=True, permutations=0)
    places = [k for k in range(24) if k not in (3, 10)]
    without = factorial_variance((x @ x.T)[np.ix_(places, places)], kept(factors, places), unit=True, permutations=0)
    assert found == without and found["deltas"] == 22
    assert factorial_variance(x @ x.T, factors, permutations=0)["deltas"] == 24
    nothing = [
        factorial_variance(np.zeros((24, 24)), factors, unit=True),
        factorial_variance(np.zeros((24, 24)), factors),
        factorial_variance(np.ones((24, 24)), factors, generator=np.random.default_rng(0), permutations=9),
        factorial_variance([[2.0]], {"method": ["sft"]}),
        factorial_variance(x[:4] @ x[:4].T, {}),
        factorial_variance(x[:4] @ x[:4].T, {"method": range(4)}),
        found,
    ]
    for empty in nothing:
        json.dumps(empty, allow_nan=False)
    assert [empty["deltas"] for empty in nothing[:4]] == [0, 24, 24, 1]
    assert [empty["total"] for empty in nothing[:4]] == [0, 0, 0, 0]
    assert all(row["share"] is None and row["p"] is None for empty in nothing[:3] for row in empty["terms"].values())
    assert nothing[4]["residual"]["share"] == 1
    assert nothing[5]["terms"]["method"]["share"] == pytest.approx(1) and nothing[5]["terms"]["method"]["f"] is None


@pytest.mark.parametrize("design", ["balanced", "unbalanced"])
def test_components_are_unbiased_under_random_effects(design: str) -> None:
    """Over 400 draws the mean of each estimate is the planted variance, within four standard errors."""
    generator, draws = np.random.default_rng(5), 400
    factors = crossing({"a": list("pqrs"), "b": [1, 2, 3]}, 2)
    factors = factors if design == "balanced" else kept(factors, [0, 1, 3, *range(5, 24), 23, 23])
    m, sizes = len(factors["a"]), {"a": 2.0, "b": 0.0, "a:b": 0.5}
    estimates = []
    for _ in range(draws):
        x = generator.normal(size=(m, 3))
        for name, size in sizes.items():
            columns = dummies(factors, [name])[:, 1:]
            x += columns @ generator.normal(size=(columns.shape[1], 3)) * np.sqrt(size / 3)
        found = rows(factorial_variance(x @ x.T, factors, permutations=0))
        estimates.append([row["component"] for row in found.values()])
    error = np.std(estimates, axis=0) / np.sqrt(draws)
    assert (np.abs(np.mean(estimates, axis=0) - [*sizes.values(), 3]) < 4 * error).all()


def test_components_of_a_balanced_design_by_mean_squares() -> None:
    x, factors = dense(18), crossing({"a": list("pqr"), "b": [1, 2]}, 3)
    found = rows(factorial_variance(x @ x.T, factors, permutations=0))
    a, b, both, noise = (row["mean_square"] for row in found.values())
    expected = [(a - both) / 6, (b - both) / 9, (both - noise) / 3, noise]
    assert [row["component"] for row in found.values()] == pytest.approx(expected)
    shares = [row["component_share"] for row in found.values()]
    assert shares == pytest.approx((np.array(expected) / sum(expected)).tolist())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-40, 1e-6, 1.0, 1e30]), unit=st.booleans())
def test_invariances(seed: int, scale: float, unit: bool) -> None:
    """Rotations, other names and orders of levels, orders of cells and of factors, and the scale change no share."""
    generator = np.random.default_rng(seed)
    places = generator.choice(24, size=int(generator.integers(12, 30)))
    factors = kept(crossing(LEVELS), places.tolist())
    x = generator.normal(size=(len(places), 30))
    order = generator.permutation(len(places))
    rotation = np.linalg.qr(generator.normal(size=(30, 30)))[0]
    names = {name: dict(zip(LEVELS[name], generator.permutation(9).tolist(), strict=False)) for name in LEVELS}
    moved = {name: [names[name][levels[k]] for k in order] for name, levels in reversed(factors.items())}
    y = scale * x[order] @ rotation
    one = factorial_variance(x @ x.T, factors, MAINS, unit=unit, permutations=0)
    two = factorial_variance(y @ y.T, moved, MAINS, unit=unit, permutations=0)
    assert two["total"] == pytest.approx(one["total"] * (1 if unit else scale**2))
    for name, row in rows(one).items():
        for key in ("df", "share", "f", "component_share"):
            if key in row:
                assert rows(two)[name][key] == pytest.approx(row[key], rel=1e-8, abs=1e-10), (name, key)


def test_jackknife_by_its_formula_and_on_equal_layers() -> None:
    factors = crossing({"method": list("abc"), "order": [1, 2]}, 2)
    layers = [dense(12, seed=seed) * (1 + seed) for seed in range(5)]
    grams = [x @ x.T for x in layers]
    for unit in (False, True):
        found = jackknife(grams, factors, unit=unit)
        whole = factorial_variance(np.sum(grams, axis=0), factors, unit=unit, permutations=0)
        for name, row in rows(whole).items():
            left_out = [np.concatenate(layers[:k] + layers[k + 1 :], axis=1) for k in range(5)]
            shares = [
                rows(factorial_variance(x @ x.T, factors, unit=unit, permutations=0))[name]["share"] for x in left_out
            ]
            se = np.sqrt(4 / 5 * ((shares - np.mean(shares)) ** 2).sum())
            share = found["shares"][name]
            assert share["share"] == pytest.approx(row["share"])
            assert share["se"] == pytest.approx(se, rel=1e-8)
            assert share["high"] == pytest.approx(min(1, row["share"] + 2.7764451 * se))  # t of 4 degrees of freedom
            assert share["low"] == pytest.approx(max(0, row["share"] - 2.7764451 * se))
        assert set(found["shares"]) == {"method", "order", "method:order", "residual"} and found["layers"] == 5
    equal = jackknife([grams[0]] * 3, factors)["shares"]["method"]
    assert equal["se"] == pytest.approx(0, abs=1e-12) and equal["low"] == pytest.approx(equal["high"])
    single = jackknife(grams[:1], factors)["shares"]["method"]
    assert single["share"] is not None and (single["se"], single["low"], single["high"]) == (None, None, None)


def test_jackknife_with_a_delta_in_one_layer_alone() -> None:
    """Without that layer it is zero and has no direction; the others still give every share."""
    factors = crossing({"method": list("abc"), "order": [1, 2]}, 2)
    layers = [dense(12, seed=seed) for seed in range(3)]
    for x in layers[1:]:
        x[5] = 0
    found = jackknife([x @ x.T for x in layers], factors, unit=True)
    assert all(row["se"] > 0 for row in found["shares"].values())
    # Nothing but one delta per method is left without the first layer.
    for x in layers[1:]:
        x[[1, 2, 3, 5, 6, 7, 9, 10, 11]] = 0
    found = jackknife([x @ x.T for x in layers], factors, unit=True)
    assert found["shares"]["order"]["share"] is not None and found["shares"]["order"]["se"] is None
    json.dumps(found, allow_nan=False)


def test_agreement_of_distances_with_pairs_of_vectors(agreement: Agreement) -> None:
    x = dense(len(UNBALANCED["method"]))
    x[4] = 0
    found = distances(x @ x.T, UNBALANCED | {"base": [0] * len(x)})
    mean_square = float((x**2).sum(1).mean())
    assert (found["deltas"], found["mean_square"]) == (len(x), pytest.approx(mean_square))
    for name in (*MAINS, "replicates"):
        differ = [name] if name in MAINS else []
        pairs = [
            (i, j)
            for i, j in combinations(range(len(x)), 2)
            if [key for key, own in UNBALANCED.items() if own[i] != own[j]] == differ
        ]
        row = found["factors"].get(name, found["replicates"])
        squares = [float(((x[i] - x[j]) ** 2).sum()) / mean_square for i, j in pairs]
        cosines = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i, j in pairs if 4 not in (i, j)]
        assert (row["pairs"], row["cosine_pairs"]) == (len(pairs), len(cosines))
        keys = [f"{kind}{end}" for kind in ("squared", "cosine") for end in ("", "_min", "_max")]
        values = [of(part) for part in (squares, cosines) for of in (np.mean, np.min, np.max)]
        agreement(f"factorial: distances, {name}", [row[key] for key in keys], values, 1e-12)
    assert found["factors"]["base"]["pairs"] == 0 and found["factors"]["base"]["squared"] is None
    nothing = distances(np.zeros((3, 3)), {"method": list("aab")})
    assert (nothing["factors"]["method"]["pairs"], nothing["factors"]["method"]["squared"]) == (2, None)
    json.dumps([found, nothing, distances(np.zeros((0, 0)), {"method": []})], allow_nan=False)


def test_refusals() -> None:
    g, factors = np.eye(12), crossing({"method": list("abc"), "order": [1, 2]}, 2)
    for call in (factorial_variance, distances):
        with pytest.raises(ValueError, match="factor 'order' has 11 levels for 12 deltas"):
            call(g, factors | {"order": [1] * 11})
    with pytest.raises(ValueError, match="factor 'order' has 11 levels for 12 deltas"):
        factorial_variance(np.diag([0.0, *[1] * 11]), factors | {"order": [1] * 11}, unit=True)
    with pytest.raises(ValueError, match="the name of a factor has no ':', this is 'a:b'"):
        factorial_variance(g, {"a:b": [1] * 12})
    with pytest.raises(ValueError, match="term 'method:order' needs the term 'order'"):
        factorial_variance(g, factors, ["method", "method:order"])
    with pytest.raises(ValueError, match="term 'rate' is not made of different factors of method, order"):
        factorial_variance(g, factors, ["rate"])
    with pytest.raises(ValueError, match="a term stands twice in"):
        factorial_variance(g, factors, ["method", "order", "method:order", "order:method"])
    with pytest.raises(ValueError, match="layers of one shape"):
        jackknife([g, np.eye(2)], factors)
    with pytest.raises(ValueError, match="layers of one shape"):
        jackknife([], factors)
    with pytest.raises(ValueError, match="square and finite"):
        factorial_variance(g[:3], factors)
