"""Dealing trainings out to jobs: hand-worked cases, and Graham's bound."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from execution.step import Step
from orchestrator.cluster.packing import deal, length, pack
from orchestrator.config.study import Study
from orchestrator.steps import STEP_KINDS


@pytest.fixture
def trainings(make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]]) -> list[Step]:
    return [
        step for step in plan_of(make_study("sweep.learning_rates=[3e-5, 1e-4, 3e-4]")) if step.kind.name == "train"
    ]


def test_on_gpus_each_training_is_a_job_and_the_sweep_one_the_longest_first(trainings: list[Step]) -> None:
    jobs = pack(trainings, 8, False, {step.title: length(step) for step in trainings})
    assert [[step.name for step in job.steps] for job in jobs] == [
        ["dpo-lr1e-4", "dpo-lr3e-4"], ["dpo"], ["sft"], ["rft"], ["sft-order43"], ["sft-init43"],
    ]  # fmt: skip
    assert [(job.sweep, job.at_once) for job in jobs] == [(True, 2)] + [(False, 1)] * 5


def test_on_cpus_the_rest_are_queues_and_the_swept_methods_own_cell_joins_the_sweep(trainings: list[Step]) -> None:
    jobs = pack(trainings, 2, True, {step.title: length(step) for step in trainings})
    assert [sorted(step.name for step in job.steps) for job in jobs] == [
        ["dpo", "dpo-lr1e-4", "dpo-lr3e-4"], ["rft", "sft", "sft-init43", "sft-order43"],
    ]  # fmt: skip
    assert jobs[0].sweep and jobs[0].at_once == 1


def test_a_queue_waits_for_the_sweeps_slot_where_that_ends_first(trainings: list[Step]) -> None:
    sweep, *queues = pack(trainings, 2, True, {step.title: 1 if step.role == "sweep" else 4 for step in trainings})
    assert sorted(step.name for step in sweep.steps) == ["dpo", "dpo-lr1e-4", "dpo-lr3e-4"]  # 1 + 1 + 4
    assert [[step.name for step in queue.steps] for queue in queues] == [["sft", "rft", "sft-init43"], ["sft-order43"]]


def test_without_slots_for_both_nothing_is_lost(trainings: list[Step]) -> None:
    jobs = pack(trainings, 1, True, {})
    assert sorted(step.name for job in jobs for step in job.steps) == sorted(step.name for step in trainings)


def test_a_sweep_alone_takes_all_slots(trainings: list[Step]) -> None:
    (job,) = pack([step for step in trainings if step.role == "sweep"], 8, False, {})
    assert job.at_once == 2


def test_dealing_keeps_grahams_bound_to_the_best_of_all_deals() -> None:
    draw = random.Random(0)
    for _ in range(30):
        queues, lengths = draw.randint(2, 3), {f"train/{i}": draw.uniform(1, 10) for i in range(draw.randint(1, 7))}
        steps = [
            Step(STEP_KINDS["train"], title.partition("/")[2], {})
            for title in sorted(lengths, key=lambda t: -lengths[t])
        ]
        found = [queue for queue in deal(steps, [0.0] * queues, lengths) if queue]
        assert sorted(s.title for q in found for s in q) == sorted(lengths)
        longest = max(sum(lengths[s.title] for s in q) for q in found)
        best = min(
            max(sum(t for t, q in zip(lengths.values(), places, strict=True) if q == k) for k in range(queues))
            for places in itertools.product(range(queues), repeat=len(lengths))
        )
        assert best - 1e-9 <= longest <= best * (4 / 3 - 1 / (3 * queues)) + 1e-9


def test_pairs_are_twice_as_long(trainings: list[Step]) -> None:
    by_name = {step.name: length(step) for step in trainings}
    assert by_name["dpo"] == 2 * by_name["sft"]
