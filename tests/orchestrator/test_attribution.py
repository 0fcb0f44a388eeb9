"""Planted trainings: what moves the update, and how methods differ at one rate."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from analysis.weights.geometry import module_geometry
from analysis.weights.summary import summarise
from models.adapter import Factors
from orchestrator.results.attribution import attribution
from orchestrator.results.matched import matched
from results.attribution import Attribution, VarianceBy
from results.matched import MatchedRow
from results.trainings import Trained
from results.weights import MeasuredGeometry
from tests.report.drawn_study import COURSE, drawn

METHODS, RATES, ORDERS = ("sft", "dft", "dpo"), (1e-4, 1e-3), (42, 43)
SIZE = {"method": 3.0, "learning_rate": 2.0, "order_seed": 0.5}  # of the step that each factor's levels make


def _trainings() -> list[Trained]:
    rows = []
    for method, rate, order in product(METHODS, RATES, ORDERS):
        changed = [f"lr{rate:g}"] if rate != 1e-3 else []
        changed += [f"order{order}"] if order != 42 else []
        role = {(): "method", ("l",): "sweep", ("o",): "order", ("l", "o"): "cell"}[tuple(text[0] for text in changed)]
        told = {"name": "-".join([method, *changed]), "method": method, "objective": method, "role": role}
        told |= {"of": method if changed else None, "learning_rate": rate, "init_seed": 42, "order_seed": order}
        rows.append(Trained.model_validate(COURSE | told | {"status": "done", "error": None}))
    return rows


def _geometry(trainings: list[Trained]) -> MeasuredGeometry:
    """Two layers; every level of a factor has an axis of its own, so that sums of squares are known in closed form."""
    axes = {key: i for i, key in enumerate([*(("method", m) for m in METHODS), *(("learning_rate", r) for r in RATES),
                                            *(("order_seed", o) for o in ORDERS)])}  # fmt: skip
    updates = []
    for training in trainings:
        update = np.ones(len(axes) + 1)
        for factor, size in SIZE.items():
            update[axes[factor, getattr(training, factor)]] += size
        updates.append(update)
    modules = {}
    for layer, weight in enumerate((1.0, 0.5)):
        factors = [Factors(torch.full((1, 1), weight, dtype=torch.float64), torch.tensor(u)[None]) for u in updates]
        modules[f"model.layers.{layer}.mlp.down_proj"] = module_geometry(factors)
    found = summarise([training.name for training in trainings], modules)
    for row in (*found["adapters"], *found["adapter_modules"]):
        row |= {"a_moved_rel": None, "start_share": None}
    rest = drawn(1).results["geometry"]
    return MeasuredGeometry.model_validate(found | {key: rest[key] for key in ("itself", "along", "chance")})


@pytest.fixture(scope="module")
def planted() -> tuple[list[Trained], MeasuredGeometry, Attribution]:
    trainings = _trainings()
    geometry = _geometry(trainings)
    found = attribution(geometry, None, trainings, 0)
    assert found is not None
    return trainings, geometry, found


def _of(found: Attribution, subject: str) -> VarianceBy:
    return next(variance for variance in found.variance if variance.of == subject)


def test_planted_effects_come_back_as_shares(planted: tuple) -> None:
    """A factor of k levels, each on an axis of its own and size s, adds M s^2 (1 - 1/k) to the sum of squares."""
    _, _, found = planted
    variance = _of(found, "update")
    scale = 1.0**2 + 0.5**2  # of the two layers
    planted_sums = {
        factor: scale * 12 * size**2 * (1 - 1 / levels)
        for (factor, size), levels in zip(SIZE.items(), (len(METHODS), len(RATES), len(ORDERS)), strict=True)
    }
    assert variance.balanced and variance.total == pytest.approx(sum(planted_sums.values()), rel=1e-9)
    shares = {term.factors[0]: term.share for term in variance.terms if len(term.factors) == 1}
    assert shares == pytest.approx({name: value / variance.total for name, value in planted_sums.items()}, rel=1e-6)
    assert all(term.share == pytest.approx(0, abs=1e-12) for term in variance.terms if len(term.factors) > 1)
    for term in variance.terms:
        assert term.low is not None and term.high is not None and term.share is not None
        assert term.low - 1e-9 <= term.share <= term.high + 1e-9


def test_pairs_that_differ_in_one_factor_alone_are_counted_and_measured(planted: tuple) -> None:
    trainings, geometry, found = planted
    rows = {row.factor: row for row in found.one_factor}
    assert {factor: row.pairs for factor, row in rows.items()} == {"method": 12, "learning_rate": 6, "order_seed": 6}
    known = {row.name: row for row in trainings}
    alone = [
        pair.cosine
        for pair in geometry.pairs
        if (a := known[pair.a]) and (b := known[pair.b])
        and (a.method, a.learning_rate) == (b.method, b.learning_rate)
    ]  # fmt: skip
    assert rows["order_seed"].cosine == pytest.approx(np.mean(alone))
    assert (rows["order_seed"].cosine_min, rows["order_seed"].cosine_max) == (min(alone), max(alone))


def test_the_layers_grams_give_the_intervals_that_their_pairs_give(planted: tuple) -> None:
    """As of a study that does not list every pair by layer; the two layers are 1 and .5 times the same updates."""
    trainings, geometry, found = planted
    whole = np.array(geometry.gram)
    grams = np.stack([whole * weight**2 / (1 + 0.5**2) for weight in (1.0, 0.5)])
    without = geometry.model_copy(update={"layers": []})
    again = attribution(without, None, trainings, 0, grams)
    assert again is not None
    for variance in found.variance:
        for term, other in zip(variance.terms, _of(again, variance.of).terms, strict=True):
            assert (other.low, other.high) == pytest.approx((term.low, term.high), abs=1e-9)
            assert (other.share, other.p) == (term.share, term.p)


def test_one_factor_is_no_factorial() -> None:
    trainings = [row for row in _trainings() if row.learning_rate == 1e-3 and row.order_seed == 42]
    assert attribution(_geometry(trainings), None, trainings, 0) is None


def _matched(spread: float, gap: float, problems: int = 400) -> dict[str, MatchedRow]:
    trainings = _trainings()
    generator = np.random.default_rng(0)
    latent = generator.random(problems)
    shares = {}
    for row in trainings:
        level = 0.5 + (gap if row.method == "dpo" else 0.0) + spread * (1 if row.order_seed == 42 else -1)
        shares[row.name] = (latent + generator.normal(0, 0.02, problems) < level).astype(float)
    rows = matched(trainings, "sft", _geometry(trainings), None, [], {"sums": shares})
    assert all(row.matched == "learning rate" and row.learning_rate == row.reference_rate for row in rows)
    return {f"{row.method} {row.learning_rate:g}": row for row in rows}


def test_methods_are_matched_at_each_rate_from_all_their_trainings() -> None:
    rows = _matched(0.0, 0.2)
    assert list(rows) == ["dft 0.0001", "dft 0.001", "dpo 0.0001", "dpo 0.001"]
    one = rows["dpo 0.0001"]
    assert (one.trainings, one.reference_trainings) == (
        ["dpo-lr0.0001", "dpo-lr0.0001-order43"], ["sft-lr0.0001", "sft-lr0.0001-order43"],
    )  # fmt: skip
    assert one.cosine is not None and one.floor is not None
    assert (one.cosine.pairs, one.floor.pairs) == (4, 2) and one.cosine.high < one.floor.low


def test_a_difference_is_told_or_says_what_would_tell_it() -> None:
    (told,) = _matched(0.0, 0.2)["dpo 0.001"].accuracy
    assert told.p_holm is not None and told.p_holm < 0.05 and told.settled is None
    assert told.low is not None and told.high is not None and told.low < 0.2 < told.high
    (open_,) = _matched(0.05, 0.05)["dpo 0.001"].accuracy
    assert open_.p_holm is not None and open_.p_holm >= 0.05 and open_.sd_trainings == pytest.approx(0.07, abs=0.03)
    assert open_.settled is not None and open_.settled.trainings is not None and open_.settled.trainings > 2


def test_one_training_of_each_says_nothing_of_other_trainings() -> None:
    trainings = [row for row in _trainings() if row.order_seed == 42]
    shares = {"sums": {row.name: np.arange(50) % 2.0 for row in trainings}}
    (accuracy,) = matched(trainings, "sft", None, None, [], shares)[0].accuracy
    assert (accuracy.low, accuracy.p, accuracy.sd_trainings, accuracy.settled) == (None, None, None, None)


def test_a_claim_of_a_large_share_without_its_test_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from report import findings
    from report.headline import rows
    from report.model_index import model_index
    from tests.report.claim_checks import check

    monkeypatch.setattr("report.findings.attribution.LEVEL", 1.01)
    with pytest.raises(AssertionError):
        for seed in range(60):
            study = drawn(seed)
            index = model_index(study.typed)
            check(study, findings.findings(study.typed, index, rows(study.typed, index)).claims)


@pytest.mark.parametrize(("p", "said"), [(0.001, True), (0.4, False)])
def test_a_share_of_initial_a_stands_beside_its_share_of_the_effect(
    planted: tuple[list[Trained], MeasuredGeometry, Attribution], p: float, said: bool
) -> None:
    """Only where another initial A is shown to turn the updates."""
    from report.findings.attribution import points
    from report.model_index import model_index

    study = drawn(0)
    (direction,) = [v for v in planted[2].variance if v.of == "direction"]
    term = direction.terms[0].model_copy(update={"factors": ["init_seed"], "p_holm": p, "p": p, "p_floor": 0.001})
    effect = direction.model_copy(update={"of": "effect", "terms": [term.model_copy(update={"share": 0.123})]})
    both = [direction.model_copy(update={"terms": [term]}), effect]
    results = study.typed.model_copy(update={"attribution": planted[2].model_copy(update={"variance": both})})
    words = [claim.words for claim in points(results, model_index(study.typed)) if claim.kind == "init by effect"]
    assert [("12.3% goes with the draw of initial A" in text) for text in words] == [True] * said


@pytest.mark.parametrize(("p", "said"), [(0.001, True), (0.002, False)])
def test_a_p_that_nothing_could_make_smaller_is_said_to_be(
    planted: tuple[list[Trained], MeasuredGeometry, Attribution], p: float, said: bool
) -> None:
    from report.findings.attribution import points
    from report.model_index import model_index

    study = drawn(0)
    (direction,) = [v for v in planted[2].variance if v.of == "direction"]
    terms = [
        direction.terms[0].model_copy(update={"factors": [factor], "p_holm": 0.01, "p": one, "p_floor": 0.001})
        for factor, one in (("method", p), ("order_seed", 0.003))
    ]
    both = [direction.model_copy(update={"terms": terms})]
    results = study.typed.model_copy(update={"attribution": planted[2].model_copy(update={"variance": both})})
    (words,) = [claim.words for claim in points(results, model_index(study.typed)) if claim.kind == "turns"]
    assert words.endswith("Holm p 0.010 each; the p of loss is the smallest that shuffled labels can give.") == said
    assert ("smallest" in words) == said
