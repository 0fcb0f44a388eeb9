"""Schedules worked by hand, and what holds of every one: nothing held twice, nothing too early, no bound beaten."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import pytest

from execution.errors import UserError
from execution.step import Step
from orchestrator.config.study import Study
from orchestrator.planning.schedule import Entry, Need, Schedule, make_schedule, needs, of_study, ranks, units
from orchestrator.steps import STEP_KINDS

CPU, GPU, HALF = Need(), Need(1.0), Need(0.5)
Planted = Mapping[str, tuple[float, Need, Sequence[str]]]  # by name: seconds, what it holds, what it reads


def plant(planted: Planted) -> tuple[list[Step], dict[str, float], dict[str, Need]]:
    made: dict[str, Step] = {}
    for name, (_, _, reads) in planted.items():
        made[name] = Step(STEP_KINDS["problems"], name, {}, {r: made[r] for r in reads})
    titles = {name: step.title for name, step in made.items()}
    return (
        list(made.values()),
        {titles[n]: seconds for n, (seconds, _, _) in planted.items()},
        {titles[n]: need for n, (_, need, _) in planted.items()},
    )


def scheduled(planted: Planted, gpus: int) -> tuple[Schedule, dict[str, Entry]]:
    found = make_schedule(*plant(planted), gpus)
    return found, {entry.step.name: entry for entry in found.entries}


def test_the_longest_path_goes_first() -> None:
    """By name or by length alone ``short`` and ``other`` would go first, and the chain would end at 9."""
    found, at = scheduled(
        {
            "short": (3, GPU, []), "other": (3, GPU, []),
            "head": (2, GPU, []), "middle": (2, GPU, ["head"]), "tail": (2, GPU, ["middle"]),
        },
        2,
    )  # fmt: skip
    assert found.makespan == 6  # 12 GPU-seconds on two GPUs: none is shorter
    assert (found.chain, found.work, found.busy) == (6, 6, 1)
    assert (at["head"].start, at["tail"].end) == (0, 6)
    assert [at[n].start for n in ("short", "other")] == [0, 3]


def test_a_planted_optimum_of_ten_trainings() -> None:
    """Two of 8 and eight of 4, each with an evaluation of 1, on four GPUs: 15 is reached, and nothing less can be."""
    trainings: dict[str, tuple[float, Need, Sequence[str]]] = {f"t{i}": (8 if i < 2 else 4, GPU, []) for i in range(10)}
    evaluations: dict[str, tuple[float, Need, Sequence[str]]] = {f"e{i}": (1, GPU, [f"t{i}"]) for i in range(10)}
    found, at = scheduled(trainings | evaluations, 4)
    # 58 GPU-seconds on four GPUs are 14.5; whole seconds, so 15 or more.
    assert found.work == 14.5 and found.chain == 9
    assert found.makespan == 15
    assert at["t0"].start == at["t1"].start == 0


def test_two_trainings_share_a_gpu() -> None:
    found, at = scheduled({"a": (4, HALF, []), "b": (4, HALF, []), "c": (2, GPU, [])}, 2)
    assert at["a"].gpus == at["b"].gpus == [0]
    assert at["c"].gpus == [1] and at["c"].start == 0
    assert (found.makespan, found.work, found.busy) == (4, 3, 0.75)
    assert scheduled({"a": (4, HALF, []), "b": (4, HALF, []), "c": (2, GPU, [])}, 1)[0].makespan == 6


def test_shares_add_up_as_whole_numbers() -> None:
    tenth: Planted = {str(i): (1, Need(0.1), []) for i in range(10)}
    assert scheduled(tenth, 1)[0].makespan == 1
    assert scheduled({str(i): (1, Need(1 / 3), []) for i in range(3)}, 1)[0].makespan == 1
    assert scheduled({str(i): (1, Need(0.6), []) for i in range(2)}, 1)[0].makespan == 2  # two do not fit one GPU


def test_workers_hold_their_gpus_together() -> None:
    found, at = scheduled({"wide": (2, Need(1.0, together=3), []), "a": (1, GPU, []), "b": (3, GPU, [])}, 4)
    assert at["wide"].gpus == [1, 2, 3] and {(h.start, h.end) for h in at["wide"].holds} == {(0, 2)}
    assert (at["b"].gpus, at["b"].start, at["a"].start) == ([0], 0, 2)
    assert (found.makespan, found.work) == (3, (6 + 1 + 3) / 4)
    halves, at = scheduled({"wide": (2, Need(0.5, together=3), [])}, 2)
    assert at["wide"].gpus == [0, 1] and len(at["wide"].holds) == 3
    assert halves.busy == pytest.approx(0.75)


def test_a_step_of_parts_takes_what_is_free() -> None:
    found, at = scheduled({"long": (3, GPU, []), "shared": (6, Need(1.0, parts=3), [])}, 3)
    # Parts of 2 seconds: two at once beside the long step, and one more behind them.
    assert found.makespan == 4 and at["shared"].end == 4
    assert sorted((h.start, h.end) for h in at["shared"].holds) == [(0, 2), (0, 2), (2, 4)]


def test_one_gpu_does_one_thing_after_another() -> None:
    """Base and rollouts of a file, four trainings, what reads them all: work on the GPU plus the cores' chain."""
    planted: dict[str, tuple[float, Need, Sequence[str]]] = {"base": (3, CPU, []), "rollouts": (4, CPU, ["base"])}
    planted |= {f"t{i}": (10 + i, GPU, ["rollouts"]) for i in range(4)}
    planted["geometry"] = (5, CPU, [f"t{i}" for i in range(4)])
    found, _ = scheduled(planted, 1)
    assert found.makespan == (3 + 4) + (10 + 11 + 12 + 13) + 5


def test_an_empty_plan_takes_no_time() -> None:
    assert make_schedule([], {}, {}, 3) == Schedule(3, (), 0.0, 0.0, 0.0, 0.0)


def test_what_never_fits_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"^problems/t needs 4 GPUs at once \(4 workers of 1\), which 3 cannot hold: "):
        scheduled({"t": (1, Need(1.0, together=4), [])}, 3)
    with pytest.raises(UserError, match=r"1\.8 GPUs at once"):  # below 2, but no GPU holds two of 0.6
        scheduled({"t": (1, Need(0.6, together=3), [])}, 2)


def check(steps: Sequence[Step], found: Schedule) -> None:
    """What holds of every schedule."""
    at = {entry.step.title: entry for entry in found.entries}
    assert sorted(at) == sorted(s.title for s in steps) and len(at) == len(found.entries)
    for step in steps:
        for read in step.inputs.values():
            assert at[read.title].end <= at[step.title].start, (read.title, step.title)
    starts = [entry.start for entry in found.entries]
    assert starts == sorted(starts)
    holds = [hold for entry in found.entries for hold in entry.holds]
    assert all(0 <= hold.gpu < found.gpus for hold in holds)
    for gpu in {hold.gpu for hold in holds}:
        mine = [h for h in holds if h.gpu == gpu]
        for instant in {h.start for h in mine}:
            assert sum(h.share for h in mine if h.start <= instant < h.end) <= 1 + 1e-9, (gpu, instant)
    least = max(found.chain, found.work)
    assert found.makespan >= least * (1 - 1e-9)
    held = sum(h.share * (h.end - h.start) for h in holds)
    assert held == pytest.approx(found.work * found.gpus)
    assert found.busy == pytest.approx(held / (found.gpus * found.makespan) if found.makespan else 0)
    # A GPU idles only where nothing fits, so no greedy schedule of whole GPUs is longer than this (Graham's bound).
    if all(hold.share == 1 for hold in holds):
        assert found.makespan <= (found.work + found.chain) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(60))
def test_every_schedule_holds(seed: int) -> None:
    draw = random.Random(seed)
    gpus = draw.choice([1, 2, 3, 8, 64])
    shares = [1.0] if seed % 2 else [1.0, 0.5, 0.3, 0.1, 1 / 3]
    planted: dict[str, tuple[float, Need, Sequence[str]]] = {}
    for i in range(draw.randint(1, 60)):
        share = draw.choice([0.0, *shares])
        together = draw.randint(1, gpus) if share and share < 1 and draw.random() < 0.3 else 1
        need = Need(share, together, draw.randint(1, gpus) if share == 1 and draw.random() < 0.2 else 1)
        reads = draw.sample(sorted(planted), min(len(planted), draw.choice([0, 0, 1, 2, 5])))
        planted[f"s{i}"] = (draw.choice([0.0, 0.1, 0.2, 0.3, 1.0, draw.uniform(0, 10)]), need, reads)
    steps, seconds, wanted = plant(planted)
    found = make_schedule(steps, seconds, wanted, gpus)
    check(steps, found)
    assert make_schedule(steps, seconds, wanted, gpus) == found


@pytest.mark.parametrize("gpus", [1, 2, 7, 64])
@pytest.mark.parametrize("share", [1, 0.5, 0.3])
def test_a_studys_schedule_holds(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], gpus: int, share: float
) -> None:
    study = make_study(f"placement.gpus_per_training={share}")
    steps = plan_of(study)
    check(steps, of_study(study, steps, gpus))


def test_what_each_step_holds(make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]]) -> None:
    study = make_study("placement.gpus_per_training=0.5", "training.workers=2")
    found = needs(study, plan_of(study), 4)
    assert found["train/dpo"] == Need(0.5, together=2)
    passes = ("reference/base", "features/base", "features/sft", "losses/base", "losses/sft")
    assert {found[t] for t in ("rollouts/sampled", "evaluate/base", "evaluate/sft", *passes)} == {GPU}
    assert {found[t] for t in ("base/scratch", "problems/evaluation", "geometry/weights", "similarity/cka")} == {CPU}
    # The one path has three points between its ends.
    assert found["connectivity/paths"] == Need(1.0, parts=3)
    assert needs(study, plan_of(study), 2)["connectivity/paths"] == Need(1.0, parts=2)


def test_rollouts_of_a_file_hold_no_gpu(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], data_folder: object
) -> None:
    study = make_study("rollouts={source: file, path: '{data}/gsm8k/rollouts.jsonl'}")
    assert needs(study, plan_of(study), 4)["rollouts/file"] == CPU


def test_a_step_ranks_by_the_longest_path_from_it() -> None:
    steps, seconds, _ = plant(
        {"a": (1, CPU, []), "b": (2, CPU, ["a"]), "c": (9, CPU, ["a"]), "d": (4, CPU, ["b", "c"]), "e": (5, CPU, [])}
    )
    by_hand = {"a": 14, "b": 6, "c": 13, "d": 4, "e": 5}
    assert ranks(steps, seconds) == {f"problems/{name}": rank for name, rank in by_hand.items()}
    assert ranks(steps[::-1], seconds) == ranks(steps, seconds)  # whatever the order they come in
    assert ranks(steps[1:], seconds)["problems/b"] == 6  # what is done is not asked about


def test_without_seconds_the_longer_training_still_ranks_first(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]]
) -> None:
    steps = plan_of(make_study("base={kind: hub, name: a/b}"))
    found = ranks(steps, None)
    by_title = {s.title: s for s in steps}
    assert units(by_title["train/sft"]) == 4 * 2 and units(by_title["train/dpo"]) == 2 * 4 * 2
    assert found["train/dpo"] == 18 > found["train/sft"] == 10  # and its losses or features behind each, and a reader
    for step in steps:
        assert all(found[read.title] > found[step.title] for read in step.inputs.values()), step.title
