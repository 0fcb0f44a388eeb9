"""Which training goes where: jobs on GPUs, the queue on CPUs by hand-worked cases and by Graham's bound."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from execution.step import Step
from orchestrator.cluster.packing import TrainingQueue, fitting, free_cpus
from orchestrator.config.study import Study
from orchestrator.planning.schedule import units as length
from orchestrator.steps import STEP_KINDS


@pytest.fixture
def trainings(make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]]) -> list[Step]:
    return [
        step for step in plan_of(make_study("sweep.learning_rates=[3e-5, 1e-4, 3e-4]")) if step.kind.name == "train"
    ]


def test_on_gpus_each_training_is_placed_on_its_own_the_longest_first(trainings: list[Step]) -> None:
    """The sweep's among them: together they would wait for two free GPUs at once, behind all shorter ones."""
    lengths = {step.title: length(step) for step in trainings}
    ready = sorted(trainings, key=lambda step: -lengths[step.title])
    names = [step.name for step in fitting(ready, lambda step: 1, 8)]
    assert names[:3] == ["dpo", "dpo-lr1e-4", "dpo-lr3e-4"]
    assert names[3:] == ["sft", "rft", "sft-order43", "sft-init43"]
    assert [step.name for step in fitting(ready, lambda step: 1, 2)] == ["dpo", "dpo-lr1e-4"]


def test_what_does_not_fit_lets_shorter_ones_pass_and_tenths_add_up(trainings: list[Step]) -> None:
    wide = {"sft": 3.0, "rft": 0.5}
    fits = [step.name for step in fitting(trainings, lambda step: wide.get(step.name, 1), 2.5)]
    assert fits == [trainings[1].name, *[s.name for s in trainings if s.name not in wide][:2]]
    left = 0.3 - 0.2  # a little less than a tenth
    assert left < 0.1 and len(fitting(trainings, lambda step: 0.1, left)) == 1


def test_the_queue_gives_the_longest_first_and_the_sweeps_when_tune_asks(trainings: list[Step]) -> None:
    queue = TrainingQueue({step.title: length(step) for step in trainings})
    assert queue.take(1, 0, 0) == ("wait", None)
    for step in trainings:
        queue.ready(step, asked=step.role != "sweep")
    word, dpo = queue.take(1, 0, 0)
    assert word == "train" and dpo is not None and dpo.name == "dpo"
    assert queue.take(1, 0, 0) == ("train", dpo), "the same for each worker of the group"
    queue.ask("train/dpo-lr3e-4")
    order = [queue.take(2, 0, number)[1] for number in range(5)]
    assert [step.name for step in order if step] == ["dpo-lr3e-4", "sft", "rft", "sft-order43", "sft-init43"]
    assert queue.take(1, 0, 1) == ("wait", None), "one is not asked for"
    queue.close()
    queue.ask("train/dpo-lr1e-4")
    assert queue.take(1, 0, 1)[0] == "train" and queue.take(1, 0, 2) == ("end", None) == queue.take(2, 0, 5)
    assert queue.taken(2) == order and queue.group_of("train/sft") == 2 and queue.group_of("train/x") == 0


def test_asked_for_before_it_is_ready_a_training_waits_for_its_inputs(trainings: list[Step]) -> None:
    queue, rate = TrainingQueue({}), next(step for step in trainings if step.role == "sweep")
    queue.ask(rate.title)
    assert queue.take(1, 0, 0) == ("wait", None)
    queue.ready(rate, asked=False)
    assert queue.take(1, 0, 0) == ("train", rate)


def test_a_sweep_alone_takes_all_slots(trainings: list[Step]) -> None:
    sweep = [step for step in trainings if step.role == "sweep"]
    assert fitting(sweep, lambda step: 1, 8) == sweep and len(sweep) == 2


def test_taking_keeps_grahams_bound_to_the_best_of_all_deals() -> None:
    """Workers that take the longest that is left end no later than 4/3 - 1/(3 workers) of the optimum (1969)."""
    draw = random.Random(0)
    for _ in range(30):
        workers, lengths = draw.randint(2, 3), {f"train/{i}": draw.uniform(1, 10) for i in range(draw.randint(1, 7))}
        queue = TrainingQueue(lengths)
        for title in lengths:
            queue.ready(Step(STEP_KINDS["train"], title.partition("/")[2], {}))
        ends, numbers = [0.0] * workers, [0] * workers
        for _ in lengths:
            free = ends.index(min(ends))
            _, step = queue.take(1, free, numbers[free])
            assert step is not None
            ends[free], numbers[free] = ends[free] + lengths[step.title], numbers[free] + 1
        best = min(
            max(sum(t for t, q in zip(lengths.values(), places, strict=True) if q == k) for k in range(workers))
            for places in itertools.product(range(workers), repeat=len(lengths))
        )
        assert best - 1e-9 <= max(ends) <= best * (4 / 3 - 1 / (3 * workers)) + 1e-9


@pytest.mark.parametrize(
    ("nodes", "groups", "free"),
    [
        ([4, 2, 2], [], [4, 2, 2]),
        ([4, 2, 2], [4], [0, 2, 2]),
        ([2, 4], [2], [0, 4]),
        ([4, 4], [3, 1], [0, 4]),
        ([2], [4], [2]),  # of a node that is gone
    ],
)
def test_a_group_lies_on_the_tightest_node_that_fits(nodes: list[int], groups: list[int], free: list[int]) -> None:
    assert free_cpus(nodes, groups) == free


def test_pairs_are_twice_as_long(trainings: list[Step]) -> None:
    by_name = {step.name: length(step) for step in trainings}
    assert by_name["dpo"] == 2 * by_name["sft"]
