"""The algebra on a Gram against dense vectors, least squares and sums by hand."""

from __future__ import annotations

import json
import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from analysis.weights.gram import along, cosine, projection, variance
from tests.conftest import Agreement

LABELS = ["sft", "dft", "sft", "dpo", "dft", "sft"]


def vectors(m: int = 6, d: int = 200, seed: int = 0) -> np.ndarray:
    """M x D deltas of unlike norms with a common part."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(m, d)) + generator.normal(size=d)) * np.geomspace(1, 30, m)[:, None]


def gram_of(x: np.ndarray) -> list[list[float]]:
    return (x @ x.T).tolist()


def sums(x: np.ndarray, labels: list[str]) -> tuple[float, float, float]:
    """Total, between and within from the vectors and their means."""
    groups = [x[[own == label for own in labels]] for label in dict.fromkeys(labels)]
    between = sum(len(g) * float(((g.mean(0) - x.mean(0)) ** 2).sum()) for g in groups)
    within = sum(float(((g - g.mean(0)) ** 2).sum()) for g in groups)
    return float(((x - x.mean(0)) ** 2).sum()), between, within


def test_agreement_of_rays_with_vectors(agreement: Agreement) -> None:
    x = vectors()
    g = gram_of(x)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    norms = np.linalg.norm(x, axis=1)
    agreement(
        "gram: cosine", [cosine(g, *p) for p in pairs], [x[i] @ x[j] / norms[i] / norms[j] for i, j in pairs], 1e-14
    )
    scales = [np.linalg.lstsq(x[[j]].T, x[i], rcond=None)[0][0] for i, j in pairs]
    missed = [np.linalg.norm(x[i] - s * x[j]) / norms[i] for s, (i, j) in zip(scales, pairs, strict=True)]
    agreement("gram: nearest multiple", [along(g, *p)["scale"] for p in pairs], scales, 1e-13)
    agreement("gram: left over of it", [along(g, *p)["left_over"] for p in pairs], missed, 1e-13)


def test_rays_by_hand() -> None:
    """(2, 0) and (3, 3): the nearest multiple of the first to the second is 1.5, and half the square is left."""
    g = gram_of(np.array([[2.0, 0.0], [3.0, 3.0]]))
    assert along(g, 1, 0) == pytest.approx({"scale": 1.5, "left_over": math.sqrt(0.5)})
    assert along(g, 0, 1) == pytest.approx({"scale": 1 / 3, "left_over": math.sqrt(0.5)})


def test_rays_of_multiples_and_zeros() -> None:
    x = vectors(1)[0]
    g = gram_of(np.stack([x, -3 * x, 0 * x]))
    assert (cosine(g, 0, 1), cosine(g, 0, 2), cosine(g, 2, 2)) == (-1, None, None)
    assert along(g, 1, 0) == {"scale": pytest.approx(-3), "left_over": pytest.approx(0, abs=1e-7)}
    assert along(g, 0, 2) == {"scale": None, "left_over": 1}
    assert along(g, 2, 0) == {"scale": 0, "left_over": None}
    assert along(g, 2, 2) == {"scale": None, "left_over": None}


@pytest.mark.parametrize("onto", [[1], [1, 2], [5, 3, 1, 2, 4]])
def test_agreement_of_the_projection_with_lstsq(onto: list[int], agreement: Agreement) -> None:
    x = vectors()
    found = projection(gram_of(x), 0, onto)
    expected, *_ = np.linalg.lstsq(x[onto].T, x[0], rcond=None)
    agreement(f"gram: projection on {len(onto)}, coefficients", found["coefficients"], expected, 1e-11)
    missed = np.linalg.norm(x[0] - expected @ x[onto]) / np.linalg.norm(x[0])
    agreement(f"gram: projection on {len(onto)}, left over", found["left_over"], missed, 1e-12)
    assert found["rank"] == len(onto)


def test_agreement_of_a_dependent_projection_with_lstsq(agreement: Agreement) -> None:
    """A duplicate, a multiple, a sum and a zero among ``onto``: the fit is that of the two independent ones."""
    x = vectors()
    wide = np.concatenate([x[:3], [x[1], -7 * x[2], x[1] + x[2], 0 * x[1]]])
    onto = [1, 2, 3, 4, 5, 6]
    found = projection(gram_of(wide), 0, onto)
    plain = projection(gram_of(wide), 0, [1, 2])
    fitted, *_ = np.linalg.lstsq(wide[[1, 2]].T, wide[0], rcond=None)
    agreement("gram: dependent projection", found["coefficients"] @ wide[onto], fitted @ wide[[1, 2]], 1e-12)
    assert found["rank"] == plain["rank"] == 2
    assert found["left_over"] == pytest.approx(plain["left_over"], abs=1e-12)
    assert found["coefficients"][0] == pytest.approx(found["coefficients"][2])
    assert found["coefficients"][5] == 0


def test_projection_of_a_target_in_the_span_and_of_zeros() -> None:
    x = vectors()
    g = gram_of(np.concatenate([x, [x[1] - 2 * x[4], 0 * x[0]]]))
    found = projection(g, 6, [1, 2, 4])
    assert found["coefficients"] == pytest.approx([1, 0, -2], abs=1e-10)
    assert found["left_over"] < 1e-6
    assert projection(g, 0, [0])["left_over"] < 1e-7
    assert projection(g, 0, []) == {"coefficients": [], "left_over": 1, "rank": 0}
    assert projection(g, 0, [7, 7]) == {"coefficients": [0, 0], "left_over": 1, "rank": 0}
    assert projection(g, 7, [0, 1]) == {"coefficients": [0, 0], "left_over": None, "rank": 2}


def test_left_over_of_a_random_target_is_the_stated_chance() -> None:
    """E left_over^2 = 1 - rank / D: over 2000 targets in 20 dimensions, within four standard errors."""
    generator = np.random.default_rng(1)
    x = np.concatenate([generator.normal(size=(5, 20)), generator.normal(size=(2000, 20))])
    g = x @ x.T
    squares = [projection(g[np.ix_(own, own)], 5, range(5))["left_over"] ** 2 for own in
               ([*range(5), k] for k in range(5, 2005))]  # fmt: skip
    assert abs(np.mean(squares) - 0.75) < 4 * np.std(squares) / math.sqrt(2000)


@pytest.mark.parametrize("unit", [False, True])
def test_agreement_of_the_analysis_of_variance_with_vectors(unit: bool, agreement: Agreement) -> None:
    x = vectors()
    found = variance(gram_of(x), LABELS, unit=unit)
    dense = x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x
    expected = sums(dense, LABELS)
    agreement(f"gram: variance, unit {unit}", [found[k] for k in ("total", "between", "within")], expected, 1e-13)
    assert found["total"] == found["between"] + found["within"]
    assert found["between_share"] + found["within_share"] == pytest.approx(1, abs=1e-15)
    assert (found["between_df"], found["within_df"], found["deltas"]) == (2, 3, 6)
    assert found["f"] == pytest.approx(expected[1] / 2 / (expected[2] / 3))
    shares = [sums(dense[list(order)], LABELS) for order in permutations(range(6))]
    assert found["between_chance"] == pytest.approx(np.mean([between / total for total, between, _ in shares]))
    assert found["p"] == np.mean([within <= expected[2] * (1 + 1e-9) for _, _, within in shares])
    assert (found["exact"], found["relabellings"]) == (True, 60)


def test_agreement_of_pseudo_f_with_scipy_in_one_dimension(agreement: Agreement) -> None:
    x = np.random.default_rng(3).normal(size=(9, 1))
    found = variance(gram_of(x), list("aaaabbbcc"))
    agreement("gram: pseudo-F, f_oneway", found["f"], stats.f_oneway(x[:4, 0], x[4:7, 0], x[7:, 0]).statistic, 1e-12)


def test_variance_by_hand() -> None:
    """1, 2, 3 against 5, 6, 7: means 2, 6 and 4, between 6 x 4, within 4. Of 20 arrangements 2 are as far apart."""
    found = variance(gram_of(np.array([[1.0], [2], [3], [5], [6], [7]])), list("aaabbb"))
    assert (found["total"], found["between"], found["within"], found["f"]) == pytest.approx((28, 24, 4, 24))
    assert (found["between_share"], found["between_chance"], found["p"]) == pytest.approx((6 / 7, 0.2, 0.1))


def test_variance_where_something_is_undefined() -> None:
    x = vectors()
    g = gram_of(x)
    single = variance(g, range(6))
    assert (single["within"], single["within_df"], single["f"], single["p"]) == (0, 0, None, None)
    one = variance(g, ["a"] * 6)
    assert (one["between"], one["between_df"], one["f"], one["p"]) == (0, 0, None, None)
    equal = variance(gram_of(np.stack([x[0]] * 4)), list("aabb"))
    assert (equal["total"], equal["between_share"], equal["f"], equal["p"]) == (0, None, None, None)
    exact_groups = variance(gram_of(x[[0, 0, 1, 1]]), list("aabb"))
    assert (exact_groups["within"], exact_groups["f"], exact_groups["p"]) == (0, None, pytest.approx(1 / 3))
    rays = variance(gram_of(np.concatenate([x[:2], 3 * x[:2], 0 * x[:1]])), list("ababa"), unit=True)
    assert (rays["deltas"], rays["within"], rays["between_share"]) == (4, 0, 1)
    assert variance([[0.0, 0.0], [0.0, 0.0]], "ab", unit=True)["deltas"] == 0
    for found in (single, one, equal, exact_groups, rays):
        json.dumps(found, allow_nan=False)


def test_sampled_p_is_near_the_exact_one_and_repeats() -> None:
    g = gram_of(vectors(9, seed=2))
    labels = list("aaaabbbcc")
    exact = variance(g, labels)
    assert (exact["exact"], exact["relabellings"]) == (True, 1260)
    drawn = [variance(g, labels, generator=np.random.default_rng(5), relabellings=999) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert (drawn[0]["exact"], drawn[0]["relabellings"]) == (False, 999)
    assert drawn[0]["p"] == pytest.approx(exact["p"], abs=4 * math.sqrt(0.25 / 999))
    assert variance(g, labels, relabellings=999)["p"] is None


def test_invariant_to_reordering() -> None:
    x = vectors()
    order = [3, 0, 5, 1, 4, 2]
    g, moved = gram_of(x), gram_of(x[order])
    there = {old: new for new, old in enumerate(order)}
    assert cosine(moved, there[0], there[2]) == pytest.approx(cosine(g, 0, 2), abs=1e-15)
    plain, found = projection(g, 0, [1, 2, 5]), projection(moved, there[0], [there[k] for k in (5, 1, 2)])
    assert found["coefficients"] == pytest.approx([plain["coefficients"][k] for k in (2, 0, 1)], abs=1e-12)
    assert found["left_over"] == pytest.approx(plain["left_over"], abs=1e-12)
    assert variance(moved, [LABELS[k] for k in order]) == pytest.approx(variance(g, LABELS), rel=1e-12)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="5 labels for 6 deltas"):
        variance(gram_of(vectors()), LABELS[:5])
    with pytest.raises(ValueError, match=r"square and finite with no negative diagonal, this is \(1, 2\)"):
        cosine([[1.0, 2.0]], 0, 0)
    with pytest.raises(ValueError, match="square and finite"):
        along([[math.nan]], 0, 0)
