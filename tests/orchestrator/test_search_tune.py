"""Decisions of a search on a cluster: Ray's own, logged, taken again after an interruption; and what its trials hold.

Ray's schedulers and searchers are the real ones, driven by hand; the cluster is the simulated one of test_cluster.
``tests/integration`` runs all of it on Ray.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from execution.errors import UserError
from execution.runner import DagRunner
from execution.step import Step
from execution.store import Store, open_store
from orchestrator.cluster import asked as asking
from orchestrator.cluster import executor as cluster
from orchestrator.cluster.asked import Asked
from orchestrator.cluster.search import ACCURACY, RESOURCE, TRIAL, LoggedASHA, suggester
from orchestrator.commands.run import _cluster as on_cluster
from orchestrator.config.study import Study
from orchestrator.planning.schedule import ranks
from orchestrator.planning.search import stage
from orchestrator.search.log import Log
from orchestrator.search.trials import Trials
from tests.orchestrator.test_cluster import Machine, on  # noqa: F401 - a fixture
from tests.orchestrator.test_search import HELD, facts_of

STOP = TrialScheduler.STOP
NOBODY: Any = None  # the controller, which ASHA does not ask


def named(number: int) -> Any:
    return SimpleNamespace(trial_id=f"ray-{number}", config={TRIAL: number})


def arrivals(seed: int, trials: int = 12, rungs: int = 3) -> list[tuple[int, int, float]]:
    """(trial, rung, accuracy) as they might come: each trial's rungs in order, trials mixed."""
    rng = np.random.default_rng(seed)
    left, queue = {trial: 0 for trial in range(trials)}, []
    while left:
        trial = int(rng.choice(list(left)))
        queue.append((trial, left[trial], float(rng.integers(0, 20)) / 20))
        left[trial] += 1
        if left[trial] == rungs:
            del left[trial]
    return queue


def run(scheduler: Any, queue: list[tuple[int, int, float]]) -> dict[tuple[int, int], str]:
    """The scheduler's actions; a trial that was stopped comes no more."""
    added, stopped, actions = set[int](), set[int](), {}
    for trial, rung, value in queue:
        if trial in stopped:
            continue
        if trial not in added:
            added.add(trial)
            scheduler.on_trial_add(NOBODY, named(trial))
        action = scheduler.on_trial_result(NOBODY, named(trial), {RESOURCE: 2**rung, ACCURACY: value})
        actions[trial, rung] = action
        if action == STOP:
            stopped.add(trial)
    return actions


@pytest.mark.parametrize("seed", range(5))
def test_decisions_are_rays_and_each_is_logged_with_its_reason(tmp_path: Path, seed: int) -> None:
    plain = ASHAScheduler(time_attr=RESOURCE, metric=ACCURACY, mode="max", max_t=4, grace_period=1, reduction_factor=2)
    log = Log(tmp_path, lambda: None)
    actions = run(LoggedASHA(log, 2, 3), arrivals(seed))
    assert actions == run(plain, arrivals(seed))
    below = {key: action == STOP for key, action in actions.items() if key[1] < 2}
    assert {(d["trial"], d["rung"]): d["stop"] for d in log.decisions} == below and any(below.values())
    for i, decision in enumerate(log.decisions):
        before = [d["value"] for d in log.decisions[:i] if d["rung"] == decision["rung"]]
        assert decision["values"] == before
        assert decision["cutoff"] == (float(np.percentile(before, 50)) if before else None)
        assert decision["stop"] == bool(before and decision["value"] < np.percentile(before, 50))


@pytest.mark.parametrize("seed", range(3))
def test_after_an_interruption_every_decision_is_taken_again(tmp_path: Path, seed: int) -> None:
    """In whatever order the trials come at first, whose known rungs are done at once; the rest goes on as it would."""
    queue = arrivals(seed)
    (tmp_path / "whole").mkdir()
    whole = run(LoggedASHA(Log(tmp_path / "whole", lambda: None), 2, 3), queue)
    for cut in range(0, len(queue), 5):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        run(LoggedASHA(Log(folder, lambda: None), 2, 3), queue[:cut])
        log = Log(folder, lambda: None)  # another process
        decided = {(d["trial"], d["rung"]) for d in log.decisions}
        known = [place for place in queue[:cut] if place[:2] in decided and log.stopped(place[0]) is None]
        rest = [place for place in queue[cut:] if log.stopped(place[0]) is None]
        mixed = sorted(known, key=lambda place: (place[1], -place[0]))  # not the order in which they were decided
        actions = run(LoggedASHA(log, 2, 3), mixed + rest)
        assert actions == {key: whole[key] for key in actions}, cut
        stopped = {key for key, action in whole.items() if action == STOP and key[1] < 2}
        assert stopped == {(d["trial"], d["rung"]) for d in Log(folder, lambda: None).decisions if d["stop"]}


def test_suggested_rates_are_logged_and_suggested_again_first(tmp_path: Path) -> None:
    config = {"between": [1e-5, 1e-3], "seed": 3}

    def suggested(log: Log, count: int) -> list[dict[str, Any]]:
        searcher, given = suggester(config, log), []
        for i in range(count):
            given.append(searcher.suggest(f"t{i}"))
            assert searcher.suggest(f"t{i}") == given[-1], "the same trial asked again has the same rate"
            searcher.on_trial_complete(f"t{i}", {ACCURACY: 1 - abs(np.log10(given[-1]["rate"]) + 4)})
        return given

    first = suggested(Log(tmp_path, lambda: None), 4)
    assert [one[TRIAL] for one in first] == [0, 1, 2, 3]
    rates = [one["rate"] for one in first]
    assert all(1e-5 <= rate <= 1e-3 and float(f"{rate:.2e}") == rate for rate in rates) and len(set(rates)) == 4
    log = Log(tmp_path, lambda: None)
    again = suggested(log, 7)
    assert [one["rate"] for one in again[:4]] == rates and [one["rate"] for one in again] == log.rates


class Searching:
    """A search on the simulated machine: its trials ask through the real :class:`Asked`, Ray's ASHA decides."""

    def __init__(self, step: Step, store: Store, asked: Any, at_once: int, folder: Path) -> None:
        self.step, self.store, self.asked, self.at_once = step, store, asked, at_once
        self.trials, self.rates = Trials.of(step.config, step.runtime), step.config["rates"]
        folder.mkdir(parents=True, exist_ok=True)
        self.log = Log(folder, lambda: None)
        self.scheduler = LoggedASHA(self.log, step.config["reduction"], len(self.trials.rungs))
        self.waiting, self.running = list(range(len(self.rates))), list[Iterator[None]]()
        self.failed: dict[str, str] = {}
        self.ended, self.error, self.gpus = False, None, 0

    def tick(self) -> None:
        while self.waiting and len(self.running) < self.at_once:
            self.running.append(self.trial(self.waiting.pop(0)))
        self.running = [trial for trial in self.running if next(trial, "over") != "over"]
        if not self.running and not self.waiting and not self.ended:
            self.ended = True
            with self.store.writing(self.step):
                pass

    def trial(self, number: int) -> Iterator[None]:
        rate = self.rates[number]
        self.scheduler.on_trial_add(NOBODY, named(number))
        for rung in range(len(self.trials.rungs)):
            for step in (self.trials.training(rate, rung), self.trials.validation(rate, rung)):
                self.asked.ask.remote(step)
                while (ended := self.asked.ended.remote(step.title)) is None:
                    yield
                if ended[0] is not None:
                    self.failed[step.title] = ended[0]
                    return
            result = {RESOURCE: self.step.config["reduction"] ** rung, ACCURACY: 1 / (1 + number)}
            if self.scheduler.on_trial_result(NOBODY, named(number), result) == STOP:
                return


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Machine], list[Searching]]:
    """Puts searches on a simulated machine; returns those that were started."""

    def put(machine: Machine) -> list[Searching]:
        started: list[Searching] = []
        tick = machine.tick

        def start(step: Step, store: Store, asked: Any, at_once: int, mark: int) -> Searching:
            started.append(Searching(step, store, asked, at_once, tmp_path / "logs" / step.name))
            return started[-1]

        def both(seconds: float) -> None:
            tick(seconds)
            for search in started:
                search.tick()

        def actor() -> SimpleNamespace:
            of = Asked()
            return SimpleNamespace(
                **{name: SimpleNamespace(remote=getattr(of, name)) for name in ("ask", "take", "end", "ended")}
            )

        monkeypatch.setattr(cluster, "search_rates", SimpleNamespace(remote=start))
        monkeypatch.setattr(cluster.time, "sleep", both)
        options = SimpleNamespace(options=lambda **how: SimpleNamespace(remote=actor))
        monkeypatch.setattr(asking, "AskedActor", options)
        monkeypatch.setattr(asking, "on_node", lambda node: None)
        monkeypatch.setattr(asking, "ray", SimpleNamespace(get=lambda answer: answer))
        return started

    return put


RATES = ", ".join(f"{k}.0e-5" for k in range(1, 17))
SIXTEEN = f"search={{algorithm: asha, learning_rates: [{RATES}], reduction: 2, methods: [sft, dpo]}}"


@pytest.mark.parametrize(("cpus", "gpus"), [(1, 0), (4, 0), (16, 1), (64, 4)])
def test_trials_hold_a_gpu_only_while_they_train(
    make_study: Callable[..., Study], on: Callable[..., Machine], searching: Callable[[Machine], list[Searching]],  # noqa: F811
    tmp_path: Path, cpus: int, gpus: int,
) -> None:  # fmt: skip
    """Every step that a trial asks for is placed like any other, a stopped trial asks for no more, and all ends."""
    study = make_study(HELD, SIXTEEN)
    machine = on(cpus, gpus)
    started = searching(machine)
    store = open_store(tmp_path / "run")
    first = stage(study, facts_of(study, tmp_path), store)
    outcome = DagRunner(first.steps, store, lambda line: None).run(
        lambda: cluster.RayExecutor(store, study.placement, ranks=ranks(first.steps, None))
    )
    assert not outcome.lost and outcome.made == {step.title for step in first.steps}
    assert {search.step.name for search in started} == {"sft", "dpo"}
    for search in started:
        stopped = [d for d in search.log.decisions if d["stop"]]
        assert len(stopped) > len(search.rates) // 3
        trained = {name.rpartition("-")[0] for name in store.storage.names("train")}
        for decision in stopped:
            assert search.trials.name(search.rates[decision["trial"]]) not in trained - {search.step.name}
        whole = [n for n in range(len(search.rates)) if search.log.stopped(n) is None]
        assert {search.trials.name(search.rates[n]) for n in whole} <= trained
    if gpus:
        assert machine.peak <= gpus + 1  # the reference step's own is Ray's to queue
        assert machine.peak >= gpus, "no GPU waits for a trial"


@pytest.mark.parametrize(("cpus", "gpus"), [(2, 0), (16, 2)])
def test_what_fails_is_told_to_its_trial_and_what_dies_is_placed_again(
    make_study: Callable[..., Study], on: Callable[..., Machine], searching: Callable[[Machine], list[Searching]],  # noqa: F811
    tmp_path: Path, cpus: int, gpus: int,
) -> None:  # fmt: skip
    study = make_study(HELD, SIXTEEN.replace("[sft, dpo]", "[sft]"))
    machine = on(cpus, gpus, fails=("sft-lr7e-5-rung2",), dies="sft-lr9e-5-rung2")
    started = searching(machine)
    store = open_store(tmp_path / "run")
    first = stage(study, facts_of(study, tmp_path), store)
    said: list[str] = []
    outcome = DagRunner(first.steps, store, said.append).run(
        lambda: cluster.RayExecutor(store, study.placement, said.append, ranks(first.steps, None))
    )
    (search,) = started
    assert not outcome.lost and search.failed == {"train/sft-lr7e-5-rung2": "planted"}
    assert any(line.startswith("train/sft-lr7e-5-rung2: FAILED: planted") for line in said)
    assert any(d["trial"] == search.rates.index(9e-5) for d in search.log.decisions), "it was trained in the end"
    assert not any(title.endswith("rung2") for title in outcome.made), "what trials ask for is not of the plan"


def test_a_trial_with_more_workers_than_the_cluster_has_slots_is_refused_at_once(
    make_study: Callable[..., Study],
    on: Callable[..., Machine],  # noqa: F811
    tmp_path: Path,
) -> None:
    study = make_study(HELD, SIXTEEN, "training.workers=5", "training.batch_size=8")
    machine, store = on(16, 4), open_store(tmp_path / "run")
    steps = stage(study, facts_of(study, tmp_path), store).steps
    with pytest.raises(UserError, match=r"training\.workers: 5 do not fit the cluster's 4 slots"):
        on_cluster(study, steps, store, argparse.Namespace(address=None))
    assert not machine.ticks
