"""Which pairs of trainings a large study lists: all in a small one, those that something reads in a large one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from analysis.weights.replicas import INIT, ORDER, RATE, Run, repeats
from execution.step import Step
from orchestrator.config.study import Study
from orchestrator.measurements.listed import listed
from orchestrator.measurements.similarity import listed as compared
from orchestrator.planning.kept_pairs import ALL_BY_PLACE, ALL_OVERALL, kept_pairs
from orchestrator.planning.training_runs import TrainingRun, training_runs
from results.part import GramCosine

Maker = Callable[..., Study]
Planner = Callable[[Study], list[Step]]
ALONE = ("replicas=[]", "sweep=null", "analysis.connectivity.pairs=[]", "max_trainings=1000")
COMPARING = ("geometry", "activations", "similarity")


def _study(make_study: Maker, orders: int, more: str = "") -> Study:
    methods = "methods={dpo: {learning_rate: 1e-4}, sft: , rft: }"
    seeds = ", ".join(str(42 + i) for i in range(orders))
    return make_study(*ALONE, methods, f"factorial=[{{learning_rate: [1e-4, 1e-3], order_seed: [{seeds}]}}{more}]")


def test_a_small_study_lists_every_pair_and_its_keys_are_as_ever(make_study: Maker, plan_of: Planner) -> None:
    study = _study(make_study, 2)
    assert len(training_runs(study)) <= ALL_BY_PLACE
    assert (kept_pairs(study).beside, kept_pairs(study).overall) == (None, None)
    configs = [step.config for step in plan_of(study) if step.kind.name in COMPARING]
    assert len(configs) == 3 and not any({"beside", "pairs"} & config.keys() for config in configs)


def test_a_larger_one_lists_by_place_what_stands_beside_the_reference(make_study: Maker, plan_of: Planner) -> None:
    study = _study(make_study, 4)
    assert ALL_BY_PLACE < len(training_runs(study)) <= ALL_OVERALL
    steps = {step.kind.name: step for step in plan_of(study)}
    told = {kind: steps[kind].config for kind in COMPARING}
    assert all(config["beside"] == "sft" and "pairs" not in config for config in told.values())


def _levels(run: TrainingRun) -> dict[str, Any]:
    own = {"method": run.method, "rate": run.learning_rate, "init": run.init_seed, "order": run.order_seed}
    return own | dict(run.varied)


def _differ(a: TrainingRun, b: TrainingRun) -> list[str]:
    one, two = _levels(a), _levels(b)
    return [key for key in one.keys() | two.keys() if one.get(key, "own") != two.get(key, "own")]


def test_a_very_large_one_lists_few_pairs_each_for_a_reason(make_study: Maker, plan_of: Planner) -> None:
    more = ", {methods: [sft, dpo], learning_rate: [1e-4], vary: {training.steps: [3]}, init_seed: [42, 43]}"
    study = _study(make_study, 18, more)
    runs = training_runs(study)
    assert len(runs) > ALL_OVERALL
    overall = kept_pairs(study).overall
    assert overall is not None and len(set(map(frozenset, overall))) == len(overall)
    listed_pairs = set(map(frozenset, overall))
    by_reference = sorted(runs, key=lambda run: run.method != "sft")
    wanted = {frozenset(("sft", run.name)) for run in runs if run.name != "sft"}
    for i, run in enumerate(by_reference):
        for factor in {key for other in runs for key in _levels(other)}:
            first = next((other for other in by_reference[:i] if _differ(other, run) in ([factor], [])), None)
            wanted |= {frozenset((first.name, run.name))} if first and _differ(first, run) else set()
    assert listed_pairs == wanted
    for step in plan_of(study):
        if step.kind.name in ("geometry", "activations"):
            assert step.config["pairs"] == [list(pair) for pair in overall]


def test_the_number_of_pairs_grows_as_the_trainings_do(make_study: Maker) -> None:
    sizes = []
    for orders in (20, 40, 80):
        study = _study(make_study, orders)
        sizes.append((len(training_runs(study)), len(kept_pairs(study).overall or ())))
    assert all(pairs <= 5 * trainings for trainings, pairs in sizes)
    (n, first), (_, second), (m, third) = sizes
    assert third / first == pytest.approx(m / n, rel=0.1) and second < third


def test_pairs_are_found_by_their_places_among_those_that_were_trained() -> None:
    names = ["sft", "dft", "dpo", "rft"]
    assert listed(names, {}) == (None, None, None)
    found = listed(names, {"beside": "dpo"})
    assert found.pairs is None and found.in_detail is not None and found.detailed is not None
    assert found.detailed.tolist() == [[0, 2], [1, 2], [2, 3]] and found.in_detail.sum() == 3
    some = listed(names, {"beside": "sft", "pairs": [["sft", "dft"], ["sft", "lost"], ["dft", "dpo"]]})
    assert some.pairs is not None and some.detailed is not None
    assert (some.pairs.tolist(), some.detailed.tolist()) == ([[0, 1], [1, 2]], [[0, 1]])
    lost = listed(names, {"beside": "lost"})
    assert lost.detailed is not None and not len(lost.detailed), "without the reference nothing reads them"
    models = ["base", *names]
    assert compared(models, "sft") == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)]
    assert compared(models, None) == list(combinations(range(5), 2))


def _repeats_by_pairs(known: Sequence[Run]) -> dict[str, list[tuple[str, str]]]:
    pairs: dict[str, list[tuple[str, str]]] = {ORDER: [], INIT: [], RATE: []}
    for a, b in combinations(known, 2):
        differs = [kind for kind in pairs if getattr(a, kind) != getattr(b, kind)]
        if (a.method, a.start) == (b.method, b.start) and len(differs) == 1:
            pairs[differs[0]].append((a.name, b.name))
    return pairs


def test_repeats_are_those_of_every_pair_in_its_order() -> None:
    drawn = np.random.default_rng(0)
    for _ in range(50):
        levels = drawn.integers(0, 3, size=(15, 5))
        known = [Run(f"r{i}", f"m{m}", r / 10 or None, n, o, "ab"[s % 2]) for i, (m, r, n, o, s) in enumerate(levels)]
        assert repeats(known) == _repeats_by_pairs(known)


def test_a_cosine_comes_of_the_gram() -> None:
    x = np.random.default_rng(1).normal(size=(4, 6))
    x[2] = 0
    cosine = GramCosine(list("abcd"), (x @ x.T).tolist())
    assert cosine("a", "d") == pytest.approx(x[0] @ x[3] / np.linalg.norm(x[0]) / np.linalg.norm(x[3]))
    assert (cosine("a", "c"), cosine("a", "unknown")) == (None, None)
    assert cosine("b", "b") == pytest.approx(1)
