"""The reference study's night on eight GPUs, by the real executor in simulated time: against the plan's schedule.

Here Ray is a stand-in with GPUs that have numbers, where a job waits as it does in Ray until its GPU is free, starts
up, works for the planned time and ends some time after its commit. ``benchmarks/night.py`` has Ray itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import WorkerCrashedError

from benchmarks.night import ON_ONE, STUDY, Nap, Night, plan_of
from execution.runner import DagRunner
from execution.step import Step
from execution.store import Store, open_store
from orchestrator.cluster import executor as cluster
from orchestrator.cluster import gpus as on_gpus
from orchestrator.planning.cost import durations
from orchestrator.planning.schedule import needs, placing_ranks

TICK = 30.0  # seconds between two looks of the executor
STARTUP, CLOSING = 90.0, 30.0  # of a job
MOST = 6000  # looks before a run counts as hanging


class Ray:
    """Jobs on numbered GPUs in simulated time; ``happenings`` are called with the time at each tick."""

    def __init__(self, gpus: int, seconds: dict[str, float], parts: dict[str, int], node: int = 4) -> None:
        self.now, self.ticks, self.seconds, self.parts, self.node = 0.0, 0, seconds, parts, node
        self.there: dict[int, tuple[float, float]] = {gpu: (0.0, float("inf")) for gpu in range(gpus)}
        self.held: set[int] = set()
        self.jobs: list[SimpleNamespace] = []
        self.rooms: dict[int, int] = {}
        self.naps: list[Nap] = []
        self.happenings: list[Callable[[float], None]] = []

    def free(self) -> list[int]:
        return [gpu for gpu, (a, b) in self.there.items() if a <= self.now < b and gpu not in self.held]

    def job(self, step: Step, store: Store, gpus: int, actor: Any = None, mark: int = 0) -> SimpleNamespace:
        job = SimpleNamespace(step=step, store=store, gpus=gpus, actor=actor, mark=mark, on=[], pieces=[])
        job.begun, job.committed, job.ended, job.error = None, None, False, None
        job.left = self.parts[step.title] if mark else 0
        self.jobs.append(job)
        return job

    def tick(self, _: float) -> None:
        self.ticks, self.now = self.ticks + 1, self.now + TICK
        assert self.ticks < MOST, "the run hangs"
        for happening in self.happenings:
            happening(self.now)
        for job in [job for job in self.jobs if not job.ended]:
            if job.committed is not None:
                if self.now >= job.committed + CLOSING:
                    self.end(job)
            elif job.mark:
                self.map(job)
            else:
                self.work(job)

    def work(self, job: SimpleNamespace) -> None:
        place = job.actor or job
        if not place.on and place.gpus:
            if len(self.free()) < place.gpus:
                return
            place.on = self.free()[: place.gpus]
            self.held |= set(place.on)
        if job.begun is None:
            fresh = job.actor is None or not job.actor.warm
            job.begun = self.now + (STARTUP if fresh and place.gpus else 0)
            if job.actor:
                job.actor.warm = True
        if self.now >= job.begun + self.seconds[job.step.title]:
            self.note(job.step, place.on, job.begun, True)
            self.commit(job)

    def map(self, job: SimpleNamespace) -> None:
        """Items, each on a GPU of its own, as many at once as the driver allows."""
        for piece in [p for p in job.pieces if self.now >= p.end]:
            self.note(job.step, [piece.gpu], piece.start, True)
            self.held.discard(piece.gpu)
            job.pieces.remove(piece)
            job.left -= 1
        while len(job.pieces) < min(job.left, self.rooms.get(job.mark, 0)) and self.free():
            gpu, start = self.free()[0], self.now
            self.held.add(gpu)
            end = start + self.seconds[job.step.title] / self.parts[job.step.title]
            job.pieces.append(SimpleNamespace(gpu=gpu, start=start, end=end))
        if not job.left:
            self.commit(job)

    def commit(self, job: SimpleNamespace) -> None:
        with job.store.writing(job.step):
            job.committed = self.now

    def end(self, job: SimpleNamespace) -> None:
        job.ended = True
        self.held -= set(job.on) | {piece.gpu for piece in job.pieces}

    def note(self, step: Step, gpus: Sequence[int], begun: float, whole: bool) -> None:
        self.naps += [Nap(step.title, str(gpu), begun, self.now, whole) for gpu in gpus] or [
            Nap(step.title, "", begun, self.now, whole)
        ]

    def die(self, job: SimpleNamespace) -> None:
        place = job.actor or job
        self.note(job.step, place.on, job.begun or self.now, False)
        job.error = WorkerCrashedError()
        self.end(job)
        if job.actor:
            self.kill(job.actor)

    def at_work(self, kind: str) -> list[SimpleNamespace]:
        running = [job for job in self.jobs if not job.ended and job.committed is None and job.begun is not None]
        return [job for job in running if job.step.kind.name == kind]

    def lose(self, gpus: Sequence[int]) -> None:
        for gpu in gpus:
            self.there[gpu] = (self.there[gpu][0], self.now)
        for job in [job for job in self.jobs if not job.ended]:
            if set((job.actor or job).on) & set(gpus):
                self.die(job)
        self.held -= set(gpus)

    def actor(self, gpus: int) -> SimpleNamespace:
        actor = SimpleNamespace(gpus=gpus, on=[], warm=False)
        actor.perform = SimpleNamespace(remote=lambda step, store: self.job(step, store, 0, actor))
        return actor

    def kill(self, actor: SimpleNamespace) -> None:
        self.held -= set(actor.on)
        actor.on = []

    def resources(self) -> dict[str, float]:
        there = sum(a <= self.now < b for a, b in self.there.values())
        return {"CPU": 64.0, "GPU": float(there)}

    def get(self, job: Any) -> Any:
        if isinstance(job, SimpleNamespace) and job.error:
            raise job.error
        return None if isinstance(job, SimpleNamespace) else job


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Night]:
    """A function that runs a study's plan to its end; ``plant(ray)`` prepares what happens meanwhile."""

    def run(gpus: int, *words: str, plant: Callable[[Ray], None] = lambda ray: None) -> Night:
        study, steps, planned = plan_of(STUDY, [*ON_ONE, *words], gpus)
        seconds = durations(study, steps)
        assert seconds is not None
        ranks = placing_ranks(study, steps, seconds, gpus)
        ray = Ray(gpus, seconds, {title: need.parts for title, need in needs(study, steps, gpus).items()})
        plant(ray)
        shares = SimpleNamespace(
            left=SimpleNamespace(remote=lambda: {job.mark: job.left for job in ray.jobs if job.mark}),
            give=SimpleNamespace(remote=ray.rooms.__setitem__),
        )

        def mapped(executor: Any, step: Step, mark: int) -> int:
            executor.shares = shares
            return mark

        def task(*, num_cpus: float, num_gpus: float, scheduling_strategy: Any = None) -> SimpleNamespace:
            def remote(step: Step, store: Store, mark: Any, slots: int) -> SimpleNamespace:
                return ray.job(step, store, int(num_gpus), mark=mark if isinstance(mark, int) else 0)

            return SimpleNamespace(remote=remote)

        stand_in = SimpleNamespace(
            cluster_resources=ray.resources,
            nodes=lambda: [{"NodeID": "home", "Alive": True, "Resources": {"CPU": 64.0, "GPU": float(ray.node)}}],
            get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "home", gcs_address="head:1"),
            wait=lambda refs, timeout: ([r for r in refs if r.ended], [r for r in refs if not r.ended]),
            get=ray.get, kill=ray.kill, shutdown=lambda: None,
        )  # fmt: skip
        over = SimpleNamespace(ended=True, error=None)
        replaced: dict[str, Any] = {
            "ray": stand_in, "perform_step": SimpleNamespace(options=task), "map_on_gpus": mapped,
            "EngineActor": SimpleNamespace(
                options=lambda num_cpus, num_gpus: SimpleNamespace(remote=lambda: ray.actor(num_gpus))
            ),
            "train_one": SimpleNamespace(remote=lambda step, store, gpus, mark: ray.job(step, store, int(gpus))),
            "tune_sweep": SimpleNamespace(remote=lambda steps, store, mark, queue: over),
            "on_node": lambda node: None, "clear": lambda marks: None, "answering": lambda head: None,
            "time": SimpleNamespace(sleep=ray.tick, monotonic=lambda: ray.now),
        }  # fmt: skip
        for name, value in replaced.items():
            for module in (cluster, on_gpus):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, value)
        store, lines = open_store(tmp_path / f"run{len(list(tmp_path.iterdir()))}"), list[str]()
        executor = cluster.RayExecutor(store, study.placement, lines.append, ranks)
        outcome = DagRunner(steps, store, lines.append).run(lambda: executor)
        assert not outcome.failed and not outcome.blocked and outcome.made == {step.title for step in steps}
        end = max(nap.end for nap in ray.naps)
        there = {str(gpu): (a, min(b, end)) for gpu, (a, b) in ray.there.items()}
        return Night(planned, ranks, 3600, ray.naps, there, end, lines)

    return run


def test_the_reference_studys_night_is_the_plans(night: Callable[..., Night]) -> None:
    found = night(8)
    assert found.twice() == 0
    assert found.makespan <= 1.1 * found.expected
    assert found.busy >= 0.85
    assert found.idle() <= STARTUP + CLOSING + 3 * TICK
    assert found.turns(2 * TICK + CLOSING) == []
    # Those of the first wave are evaluated while the second one trains.
    last_training = max(nap.end for nap in found.naps if nap.title.startswith("train/"))
    evaluated = [found.last(f"evaluate/{name}") for name in ("sft", "rft", "dft", "rift", "offline_grpo")]
    assert max(evaluated) < last_training - 3600
    first = [nap.title for nap in sorted(found.naps, key=lambda n: n.start) if nap.title.startswith("train/dpo")]
    sweep = {"train/dpo-lr5e-6", "train/dpo-lr5e-5"}
    assert sweep < set(first)


def test_a_worker_killed_a_node_lost_and_one_that_joins(night: Callable[..., Night]) -> None:
    def plant(ray: Ray) -> None:
        told = []

        def happen(now: float) -> None:
            hour = now / 3600
            if hour > 1 and "killed" not in told:
                told.append("killed")
                ray.die(ray.at_work("train")[0])
            if hour > 5 and "lost" not in told:
                told.append("lost")
                ray.lose([4, 5, 6, 7])
            if hour > 7 and "joined" not in told:
                told.append("joined")
                ray.there |= {gpu: (now, float("inf")) for gpu in (8, 9, 10, 11)}

        ray.happenings.append(happen)

    found = night(8, plant=plant)
    assert found.twice() == 0
    killed = [nap for nap in found.naps if not nap.whole]
    assert len(killed) >= 5 and all(nap.end <= 5.1 * 3600 for nap in killed)
    assert sum("placed again" in line for line in found.lines) == len(killed)
    late = {nap.gpu for nap in found.naps if nap.start > 5.1 * 3600 and nap.gpu}
    assert late == {"0", "1", "2", "3", "8", "9", "10", "11"}
    joined = [min(nap.start for nap in found.naps if nap.gpu == gpu) for gpu in ("8", "9", "10", "11")]
    assert max(joined) < 7.2 * 3600, "a node is taken into use when it joins"
    assert found.turns(2 * TICK + CLOSING) == []


def test_evaluations_in_parts_share_the_gpus_at_the_end(night: Callable[..., Night]) -> None:
    whole = night(8)
    parts = night(8, "evaluation.parts=4")
    assert parts.planned.makespan < whole.planned.makespan
    assert parts.makespan <= 1.1 * parts.expected and parts.twice() == 0
