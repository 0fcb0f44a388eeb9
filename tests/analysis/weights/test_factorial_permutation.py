"""p of the terms of a factorial against enumeration on the vectors, under planted nulls and effects."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from analysis.weights.factorial import factorial_variance
from tests.analysis.weights.test_factorial import crossing, dense, kept, type_two

TWO_WAY = ["a", "b", "a:b"]
UNEVEN = {"a": [0, 0, 1, 2, 0, 1, 2, 2], "b": [0, 0, 0, 0, 1, 1, 1, 1]}
LARGE = crossing({"a": [0, 1, 2], "b": [0, 1]}, 3)


def pseudo_f(x: np.ndarray, factors: dict[str, list], term: str, error: str = "residual") -> float:
    sums = type_two(x, factors, TWO_WAY)
    return (sums[term][0] / sums[term][1]) / (sums[error][0] / sums[error][1])


def relabelled(factors: dict[str, list], name: str, strata: list) -> list[dict[str, list]]:
    """The factors with one factor's levels in every order within the strata; equal ones as often as they are."""
    places = [[k for k, own in enumerate(strata) if own == stratum] for stratum in dict.fromkeys(strata)]
    result = []
    for orders in product(*(permutations(own) for own in places)):
        levels = list(factors[name])
        for own, order in zip(places, orders, strict=True):
            for to, from_ in zip(own, order, strict=True):
                levels[to] = factors[name][from_]
        result.append(factors | {name: levels})
    return result


@pytest.mark.parametrize(("name", "other"), [("a", "b"), ("b", "a")])
def test_a_main_effect_is_its_levels_permuted_within_strata(name: str, other: str) -> None:
    x = dense(8, 5)
    orders = {tuple(own[name]): own for own in relabelled(UNEVEN, name, UNEVEN[other])}
    f = [pseudo_f(x, own, name) for own in orders.values()]
    found = factorial_variance(x @ x.T, UNEVEN)["terms"][name]
    assert found["f"] == pytest.approx(f[0])
    assert found["p"] == np.mean(np.array(f) >= f[0] * (1 - 1e-9))
    assert (found["permuted"], found["enumerated"], found["permutations"]) == ("levels", True, len(orders))
    assert len(orders) == {"a": 144, "b": 18}[name]


def test_a_main_effect_without_replicates_against_the_interaction() -> None:
    x, factors = dense(9, 5), crossing({"a": [0, 1, 2], "b": [0, 1, 2]})
    f = [pseudo_f(x, own, "a", "a:b") for own in relabelled(factors, "a", factors["b"])]
    found = factorial_variance(x @ x.T, factors)["terms"]
    assert found["a"]["f"] == pytest.approx(f[0])
    assert found["a"]["p"] == np.mean(np.array(f) >= f[0] * (1 - 1e-9))
    assert (found["a"]["p_floor"], found["a"]["permutations"]) == (6 / 216, 216)
    assert (found["a:b"]["f"], found["a:b"]["p"], found["a:b"]["permuted"]) == (None, None, None)


def test_an_interaction_is_its_residuals_permuted() -> None:
    factors = {"a": [0, 0, 0, 1, 1, 1], "b": [0, 0, 1, 0, 1, 1]}
    x = dense(6, 5)
    columns = np.stack([np.ones(6), factors["a"], factors["b"]], axis=1)
    fitted = columns @ np.linalg.lstsq(columns, x, rcond=None)[0]
    f = [pseudo_f(fitted + (x - fitted)[list(order)], factors, "a:b") for order in permutations(range(6))]
    found = factorial_variance(x @ x.T, factors)["terms"]["a:b"]
    assert found["f"] == pytest.approx(f[0])
    assert found["p"] == np.mean(np.array(f) >= f[0] * (1 - 1e-9))
    assert (found["permuted"], found["enumerated"], found["permutations"]) == ("residuals", True, 720)
    same = np.isclose(f, f[0], rtol=1e-9).mean()
    assert found["p_floor"] == 2 * 2 / 720 <= same  # the exchanges of two pairs of replicates


def test_p_reaches_its_floor_and_is_none_where_nothing_can_be_exchanged() -> None:
    x, generator = dense(12, 5), np.random.default_rng(0)
    three = crossing({"a": [0, 1], "b": [0, 1, 2]})
    far = x[:6] + 1e4 * np.array(three["a"])[:, None]
    found = factorial_variance(far @ far.T, three)["terms"]["a"]
    assert found["p"] == found["p_floor"] == 2 / 2**3
    # Every method has orders of its own: no two methods share one; within a method orders can be exchanged.
    nested = {"method": list("aabbcc"), "order": [1, 2, 3, 4, 5, 6]}
    found = factorial_variance(x[:6] @ x[:6].T, nested, ["method"], generator=generator)["terms"]["method"]
    assert (found["p"], found["p_floor"], found["permutations"]) == (None, 1, 0) and found["f"] is not None
    found = factorial_variance(x @ x.T, kept(nested, [*range(6)] * 2), generator=generator)["terms"]["order"]
    assert (found["p_floor"], found["permutations"], found["df"]) == (2**3 / 6**3, 216, 3)
    none = factorial_variance(x @ x.T, kept(LARGE, list(range(12))))["terms"]
    assert [none[name]["p"] for name in ("a:b", "b")] == [None, pytest.approx(none["b"]["p"])]
    assert (none["a:b"]["p_floor"], none["a:b"]["enumerated"]) == (1e-4, False)


def test_drawn_p_is_near_the_enumerated_one_and_repeats() -> None:
    x = dense(8, 5)
    whole = factorial_variance(x @ x.T, UNEVEN)["terms"]["a"]
    drawn = [
        factorial_variance(x @ x.T, UNEVEN, generator=np.random.default_rng(2), permutations=143)["terms"]["a"]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert (drawn[0]["enumerated"], drawn[0]["permutations"], drawn[0]["p_floor"]) == (False, 143, 1 / 144)
    assert drawn[0]["p"] == pytest.approx(whole["p"], abs=4 * np.sqrt(0.25 / 143))


def draws(number: int, permuted: int, planted: np.ndarray, heavy: bool = False) -> list[dict]:
    """The terms of so many tests of noise beside what is planted."""
    generator = np.random.default_rng(11)
    result = []
    for _ in range(number):
        noise = generator.normal(size=planted.shape)
        x = planted + (np.exp(noise) if heavy else noise)
        found = factorial_variance(x @ x.T, LARGE, TWO_WAY, generator=generator, permutations=permuted)
        result.append(found["terms"])
    return result


@pytest.mark.parametrize(("heavy", "names"), [(False, ["a", "a:b"]), (True, ["a"])])
def test_p_is_uniform_where_a_factor_does_nothing(heavy: bool, names: list[str]) -> None:
    """500 draws beside a large effect of the other factor; a main effect's test is exact for any noise."""
    planted = 5.0 * np.array(LARGE["b"])[:, None] * np.ones(4)
    found = draws(500, 99, planted, heavy)
    jitter = np.random.default_rng(3).random(500) / 100  # 100 values of p -> an even distribution
    for name in names:
        p = np.array([terms[name]["p"] for terms in found])
        assert stats.kstest(p - jitter, "uniform").pvalue > 0.01, name
    assert np.mean([terms["b"]["p"] <= 0.05 for terms in found]) > (0.8 if heavy else 0.99)


@pytest.mark.parametrize("name", ["a", "a:b"])
def test_power_is_near_that_of_the_f_test(name: str) -> None:
    """One dimension, normal noise: the power of F at the planted noncentrality, within four standard errors."""
    effect = np.array([-1.0, 0, 1])[LARGE["a"]] * (1 if name == "a" else np.array([-1, 1])[LARGE["b"]])
    found = draws(200, 199, effect[:, None])
    power = float(stats.ncf.sf(stats.f.isf(0.05, 2, 12), 2, 12, (effect**2).sum()))
    assert 0.5 < power < 0.95
    assert np.mean([terms[name]["p"] <= 0.05 for terms in found]) == pytest.approx(power, abs=4 * np.sqrt(0.25 / 200))
