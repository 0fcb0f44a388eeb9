"""What ``plan`` says of the differences that a study's trainings can tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.statistics.trainings import method_difference
from orchestrator.config.study import Study
from orchestrator.planning.views.power import AGAIN, APART, power_lines
from results.headline import reference_among

BASE = {
    "name": "x",
    "base": {"kind": "from_scratch", "name": "scratch"},
    "rollouts": {"source": "vllm", "model": "base", "problems": {"task": "arithmetic", "split": "train", "draw": 50}},
    "evaluation": {"tasks": [{"task": "arithmetic", "draw": 300}]},
    "prompt": {"max_prompt_tokens": 64},
    "engine": {"max_model_len": 256},
}


def study(**more: object) -> Study:
    return Study.model_validate(BASE | {"methods": {"sft": None, "dft": None}} | more)


def rows(of: Study) -> dict[str, list[str]]:
    """The table's rows by their number of trainings."""
    return {line.split()[0]: line.split() for line in power_lines(of) if line.startswith(" " * 11)}


def test_one_training_of_each_is_said_to_tell_nothing() -> None:
    first = next(iter(power_lines(study())))
    assert "one training of sft, dft at the rate of comparison" in first
    assert list(rows(study())) == ["trainings", "3", "5", "10"]


def test_two_orders_are_this_studys_two_trainings() -> None:
    two = study(factorial=[{"order_seed": [42, 43]}])
    assert rows(two)["2"][1:3] == ["(this", "study)"]
    assert "one training" not in "".join(power_lines(two))


def test_comparisons_are_methods_times_rates_without_other_initial_factors_and_variants() -> None:
    cells = {"learning_rate": [1e-4, 2e-4], "init_seed": [42, 43], "vary": {"adapter.rank": [4, 8]}}
    assert "over 3 comparisons" in "".join(power_lines(study(factorial=[{"learning_rate": [1e-4, 2e-4]}, cells])))


@pytest.mark.parametrize("names", [["dft", "sft"], ["dft", "rft"]])
def test_a_plan_compares_with_the_reference_of_the_report(names: list[str]) -> None:
    assert study(methods=dict.fromkeys(names)).reference == reference_among(names)


def test_one_method_has_no_comparison() -> None:
    assert not list(power_lines(study(methods={"sft": None})))


def test_only_the_hubs_own_test_split_has_a_known_size() -> None:
    tasks = {"tasks": [{"task": "gsm8k"}, {"task": "gsm8k", "name": "local", "source": "x.jsonl"}]}
    text = "\n".join(power_lines(study(evaluation=tasks)))
    assert "gsm8k (1319)" in text and "local" not in text


@pytest.mark.parametrize("trainings", ["3", "5"])
def test_a_difference_as_large_as_the_printed_one_is_told_in_four_of_five_studies(trainings: str) -> None:
    """Normal effects with the assumed variances: SD 2 points between trainings, 300 problems."""
    generator = np.random.default_rng(0)
    printed = float(rows(study())[trainings][-2]) / 100
    shape, told, studies = (int(trainings), 300), 0, 600
    for _ in range(studies):
        shares = []
        for mean in (0.0, printed):
            of_method = generator.normal(0, math.sqrt((APART - AGAIN) / 2), 300)
            of_training = generator.normal(0, 0.02, (shape[0], 1))
            shares.append(mean + of_method + of_training + generator.normal(0, math.sqrt(AGAIN / 2), shape))
        p = method_difference(*shares).p
        told += p is not None and p < 0.05
    assert told / studies == pytest.approx(0.8, abs=0.05)
