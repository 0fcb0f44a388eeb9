"""Placement on a cluster, on a simulated one: all steps are done, no GPU is held twice, none is left idle for ever.

Ray itself is run by ``tests/integration``; machines with GPUs are not at hand there, so their accounting is held here
against a stand-in for Ray in which a job ends some time after its last step was committed, as real jobs do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import LocalRayletDiedError, WorkerCrashedError

from execution.errors import ClusterLost
from execution.runner import DagRunner
from execution.step import Step
from execution.store import Store, open_store
from orchestrator.cluster import executor as cluster
from orchestrator.cluster import gpus as on_gpus
from orchestrator.cluster.packing import TrainingQueue
from orchestrator.config.study import Placement, Study
from orchestrator.planning.schedule import ranks
from orchestrator.steps import STEP_KINDS

KILLED = WorkerCrashedError()
LIMIT = 3000  # looks at the store before a run counts as hanging


class _Watching:
    """A job that ends some time after all its steps have settled, and computes nothing."""

    error = None

    def __init__(self, job: SimpleNamespace) -> None:
        self.job, self.looks = job, 0

    @property
    def ended(self) -> bool:
        self.looks += all(self.job.store.done(s) or self.job.store.failure(s) for s in self.job.steps)
        return self.looks > 5


class Machine:
    """Jobs that commit a step a tick and end a tick later; what they hold of the GPUs.

    A step named ``dies`` kills its worker ``deaths`` times with ``error``. A step of ``fails`` leaves its failure in
    the store, and ends its job as a training of several workers does. The first ``stillborn`` groups of trainers die
    before they take a training. ``nodes``: the CPUs of each.
    """

    def __init__(
        self, cpus: int, gpus: int, dies: str = "", deaths: int = 1, error: Any = KILLED, fails: Any = (),
        nodes: tuple[int, ...] = (), stillborn: int = 0,
    ) -> None:  # fmt: skip
        self.resources = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
        self.jobs: list[SimpleNamespace] = []
        self.actors: list[SimpleNamespace] = []
        self.dies, self.deaths, self.error, self.fails = dies, deaths, error, fails
        self.ticks, self.peak, self.at_once, self.alive = 0, 0.0, 0, True
        self.nodes, self.stillborn, self.sizes = nodes or (cpus,), stillborn, list[int]()

    def add(self, steps: list[Step], store: Store, gpus: float) -> SimpleNamespace:
        job = SimpleNamespace(steps=list(steps), store=store, gpus=gpus, ended=False, error=None, queue=None)
        self.jobs.append(job)
        return job

    def trainers(self, queue: Any, group: int, workers: int, alone: bool, store: Store, mark: int) -> SimpleNamespace:
        """Trainer processes that take a training each from the queue."""
        job = self.add([], store, 0)
        self.sizes.append(workers)
        if self.stillborn:
            self.stillborn -= 1
            job.ended, job.error = True, self.error
        job.queue, job.group, job.numbers, job.held = queue, group, [0] * (workers if alone else 1), {}
        return job

    def tick(self, _seconds: float) -> None:
        self.ticks += 1
        assert self.ticks < LIMIT, "the run hangs"
        running = [job for job in self.jobs if not job.ended]
        held = sum(job.gpus for job in running) + sum(actor.gpus for actor in self.actors if actor.alive)
        self.peak, self.at_once = max(self.peak, held), max(self.at_once, len(running))
        for job in running:
            if job.queue is not None:
                self.take(job)
            elif not job.steps:
                job.ended = True
            elif self.settle(job, job.steps[0]):
                job.steps.pop(0)

    def take(self, job: SimpleNamespace) -> None:
        """Each trainer ends what it took a tick ago, and takes its next training."""
        words = set()
        for trainer, number in enumerate(job.numbers):
            if trainer in job.held and not (self.settle(job, job.held.pop(trainer)) or not job.ended):
                return
            word, step = job.queue.take.remote(job.group, trainer, number)
            words.add(word)
            if step is not None:
                job.held[trainer], job.numbers[trainer] = step, number + 1
        job.ended = words == {"end"}

    def settle(self, job: SimpleNamespace, step: Step) -> bool:
        """Commit the step; False where it fails or its worker dies."""
        if step.name == self.dies and self.deaths:
            job.ended, job.error, self.deaths = True, self.error, self.deaths - 1
            return False
        if step.name in self.fails:
            job.store.record_failure(step, "planted")
            job.ended, job.error = job.queue is None, self.error if job.queue is None else None
            return False
        with job.store.writing(step):
            pass
        return True

    def get(self, job: Any) -> Any:
        if not hasattr(job, "ended"):
            return job  # the queue's answer
        if job.error:
            raise job.error
        return None

    def queue(self, lengths: dict[str, float]) -> SimpleNamespace:
        queue = TrainingQueue(lengths)
        names = ("ready", "ask", "take", "taken", "group_of", "close")
        return SimpleNamespace(**{name: SimpleNamespace(remote=getattr(queue, name)) for name in names})

    def sweep(self, steps: list[Step], store: Store, mark: int, queue: Any = None) -> Any:
        """Tune holds nothing, and where there is a queue asks there; its job ends with its last training."""
        for step in steps if queue is not None else ():
            queue.ask.remote(step.title)
        job = SimpleNamespace(steps=steps, store=store, error=None)
        return _Watching(job)

    def shares(self) -> SimpleNamespace:
        """A step that maps items asks for no GPU here: it commits as any other."""
        return SimpleNamespace(give=SimpleNamespace(remote=lambda mark, room: None),
                               left=SimpleNamespace(remote=dict))  # fmt: skip

    def kill(self, actor: SimpleNamespace) -> None:
        actor.alive = False

    def actor(self, gpus: float) -> SimpleNamespace:
        actor = SimpleNamespace(gpus=gpus, alive=True)
        actor.perform = SimpleNamespace(remote=lambda step, store: self.add([step], store, 0))
        actor.warm = SimpleNamespace(remote=lambda kind: None)
        self.actors.append(actor)
        return actor


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """A function ``(cpus, gpus)`` that puts a simulated machine where the executor looks for Ray."""

    def put(cpus: int, gpus: int, **dies: Any) -> Machine:
        machine = Machine(cpus, gpus, **dies)
        stand_in = SimpleNamespace(
            cluster_resources=lambda: machine.resources,
            nodes=lambda: [
                {"NodeID": "home", "Alive": machine.alive, "Resources": {"CPU": float(node)}} for node in machine.nodes
            ],
            get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "home", gcs_address="head:1"),
            wait=lambda refs, timeout: ([r for r in refs if r.ended], [r for r in refs if not r.ended]),
            get=machine.get,
            kill=machine.kill,
            shutdown=lambda: None,
        )

        def task(*, num_cpus: float, num_gpus: float, scheduling_strategy: Any = None) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda step, store, share, slots: machine.add([step], store, num_gpus))

        def engine(*, num_cpus: float, num_gpus: float = 0) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda: machine.actor(num_gpus))

        replaced: dict[str, Any] = {
            "ray": stand_in,
            "perform_step": SimpleNamespace(options=task),
            "EngineActor": SimpleNamespace(options=engine),
            "QueueActor": SimpleNamespace(options=lambda **how: SimpleNamespace(remote=machine.queue)),
            "SharesActor": SimpleNamespace(options=lambda **how: SimpleNamespace(remote=machine.shares)),
            "on_node": lambda node: None,
            "train_one": SimpleNamespace(remote=lambda step, store, gpus, mark: machine.add([step], store, gpus)),
            "train_queued": SimpleNamespace(remote=machine.trainers),
            "tune_sweep": SimpleNamespace(remote=machine.sweep),
            "clear": lambda marks: None,
            "answering": lambda head: None,
            "warm": SimpleNamespace(remote=lambda: None),
            "time": SimpleNamespace(sleep=machine.tick, monotonic=lambda: float(machine.ticks)),
        }
        for name, value in replaced.items():
            for module in (cluster, on_gpus):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, value)
        return machine

    return put


def walk(study: Study, plan: list[Step], root: Path) -> Any:
    store = open_store(root)
    return DagRunner(plan, store, lambda line: None).run(
        lambda: cluster.RayExecutor(store, study.placement, ranks=ranks(plan, None))
    )


@pytest.mark.parametrize(
    ("cpus", "gpus", "share"), [(1, 0, 1), (2, 0, 1), (16, 1, 1), (16, 1, 0.4), (16, 2, 1), (64, 8, 1)]
)
def test_every_step_is_done_and_no_gpu_is_held_twice(
    make_study: Callable[..., Study],
    plan_of: Callable[[Study], list[Step]],
    on: Callable[..., Machine],
    tmp_path: Path,
    cpus: int,
    gpus: int,
    share: float,
) -> None:
    study = make_study(f"placement.gpus_per_training={share}")
    plan = plan_of(study)
    machine = on(cpus, gpus)
    outcome = walk(study, plan, tmp_path / "run")
    assert outcome.made == {step.title for step in plan} and not outcome.failed
    if gpus:  # the reference step's own GPU comes from Ray's queue, beside what the executor counts
        assert machine.peak <= gpus + 1


def test_many_gpus_train_at_once(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine], tmp_path: Path
) -> None:
    study = make_study()
    machine = on(64, 8)
    walk(study, plan_of(study), tmp_path / "run")
    assert machine.at_once >= 6


@pytest.mark.parametrize(("cpus", "gpus"), [(2, 0), (16, 0), (16, 1), (64, 8)])
def test_passes_take_what_trainings_leave_free(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine],
    tmp_path: Path, cpus: int, gpus: int,
) -> None:  # fmt: skip
    """A pass loads a base: there are never more of them at once than GPUs or cores, and no training waits for one."""
    study = make_study()
    machine = on(cpus, gpus)
    at_once: list[int] = []
    early: list[str] = []
    add = machine.add

    def watched(steps: list[Step], store: Store, gpus: float) -> Any:
        job = add(steps, store, gpus)
        job.is_pass = bool(steps) and steps[0].kind.name in ("features", "losses")
        passes = [other for other in machine.jobs if getattr(other, "is_pass", False) and not other.ended]
        at_once.append(len(passes))
        if job.is_pass and not gpus and any(other.queue is not None and not other.ended for other in machine.jobs):
            early.append(steps[0].title)
        return job

    machine.add = watched  # type: ignore[method-assign]
    outcome = walk(study, plan_of(study), tmp_path / "run")
    assert not outcome.failed and not outcome.blocked
    assert 1 <= max(at_once) <= (gpus or cpus)
    assert bool(early) == (cpus == 16 and not gpus), "two cores are the trainers' until the last training ends"


@pytest.mark.parametrize("cpus_gpus", [(1, 0), (16, 2)])
@pytest.mark.parametrize("kind", ["train", "evaluate", "losses", "features", "geometry"])
def test_a_step_whose_worker_dies_is_placed_again(
    make_study: Callable[..., Study],
    plan_of: Callable[[Study], list[Step]],
    on: Callable[..., Machine],
    tmp_path: Path,
    cpus_gpus: tuple[int, int],
    kind: str,
) -> None:
    study = make_study()
    plan = plan_of(study)
    victim = next(step for step in plan if step.kind.name == kind)
    on(*cpus_gpus, dies=victim.name, deaths=cluster.ATTEMPTS - 1)
    outcome = walk(study, plan, tmp_path / "run")
    assert outcome.made == {step.title for step in plan} and not outcome.failed


def test_an_engine_that_dies_after_every_shard_gets_to_its_end(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As long as more is kept at each death the step is not given up; a training is, whatever it keeps."""
    kept = iter(range(1, 1000))
    monkeypatch.setattr(Store, "kept", lambda store, step: next(kept))
    study = make_study("evaluation.parts=2")
    plan = plan_of(study)
    on(16, 2, dies="base-part1of2", deaths=8)
    assert not walk(study, plan, tmp_path / "engine").failed
    on(16, 2, dies="sft-order43", deaths=8)
    assert walk(study, plan, tmp_path / "training").failed.keys() == {"train/sft-order43"}


def test_the_third_death_of_a_worker_is_its_steps_failure(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine], tmp_path: Path
) -> None:
    """On one core all cells are one queue: the cell whose workers were killed fails, those behind it are trained."""
    study = make_study()
    plan = plan_of(study)
    victim = next(step for step in plan if step.kind.name == "train")
    on(1, 0, dies=victim.name, deaths=cluster.ATTEMPTS)
    outcome = walk(study, plan, tmp_path / "run")
    assert outcome.failed.keys() == {victim.title}
    assert outcome.failed[victim.title].startswith("its worker died (")
    assert outcome.failed[victim.title].endswith(", 3 times")
    trained = {step.title for step in plan if step.kind.name == "train"} - {victim.title}
    assert trained <= outcome.made


def test_cells_behind_ones_that_failed_are_not_blamed(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine], tmp_path: Path
) -> None:
    """On one core, three cells of the queue fail and end its job each time: what is behind them is trained."""
    study = make_study()
    plan = plan_of(study)
    fails = [
        step.name for step in plan if step.kind.name == "train" and step.role != "sweep" and "dpo" not in step.name
    ][:3]
    on(1, 0, fails=fails)
    said: list[str] = []
    store = open_store(tmp_path / "run")
    outcome = DagRunner(plan, store, said.append).run(
        lambda: cluster.RayExecutor(store, study.placement, said.append, ranks(plan, None))
    )
    assert outcome.failed == {f"train/{name}": "planted" for name in fails}
    assert not any("placed again" in line for line in said)


def test_nodes_of_unlike_size_are_all_used(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine], tmp_path: Path
) -> None:
    """A group of trainers lies on one node: one of four could never be placed on a node of two CPUs."""
    study = make_study("sweep.learning_rates=[3e-5, 1e-5, 2e-5, 4e-5, 3e-4]")
    machine = on(8, 0, nodes=(2, 4, 2))
    assert not walk(study, plan_of(study), tmp_path / "run").failed
    assert machine.sizes == [4, 2, 2]


@pytest.mark.parametrize("stillborn", [cluster.ATTEMPTS - 1, 10**6])
def test_trainers_that_cannot_start_fail_what_waits_for_them(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine],
    tmp_path: Path, stillborn: int,
) -> None:  # fmt: skip
    study = make_study()
    plan = plan_of(study)
    machine = on(1, 0, stillborn=stillborn)
    failed = walk(study, plan, tmp_path / "run").failed
    if stillborn < cluster.ATTEMPTS:
        assert not failed
        return
    assert failed.keys() == {step.title for step in plan if step.runs_as == "training"}
    assert all(line.startswith("trainer processes cannot start: its worker died (") for line in failed.values())
    assert all(line.endswith(", 3 times") for line in failed.values()) and len(machine.sizes) == cluster.ATTEMPTS


def test_a_training_of_the_sweep_is_told_once_whenever_it_ends(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It belongs to Tune's job and to the queue: here it ends between the executor's looks at the one and the other."""
    study = make_study()
    on(2, 0)
    ended: set[str] = set()
    looked = cluster.RayExecutor._look_up

    def late(executor: Any, step: Step) -> tuple[bool, str | None]:
        found = looked(executor, step)
        if step.role == "sweep" and found[0] and step.title not in ended:
            ended.add(step.title)
            return False, None
        return found

    monkeypatch.setattr(cluster.RayExecutor, "_look_up", late)
    assert not walk(study, plan_of(study), tmp_path / "run").failed


def test_a_lost_cluster_ends_the_run_and_fails_no_step(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine], tmp_path: Path
) -> None:
    study = make_study()
    plan = plan_of(study)
    on(2, 0, dies="sft", error=LocalRayletDiedError())
    with pytest.raises(ClusterLost, match="the driver's node of the Ray cluster has died"):
        walk(study, plan, tmp_path / "run")
    store = open_store(tmp_path / "run")
    assert not [step for step in plan if store.failure(step)]
    on(2, 0)
    assert not walk(study, plan, tmp_path / "run").failed


def test_gpus_that_come_later_are_used(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], on: Callable[..., Machine], tmp_path: Path
) -> None:
    study = make_study()
    machine = on(64, 1)
    tick = machine.tick

    def join(seconds: float) -> None:
        tick(seconds)
        if machine.ticks == 6:
            machine.resources["GPU"] = 8.0

    cluster.time.sleep = join  # type: ignore[attr-defined]
    walk(study, plan_of(study), tmp_path / "run")
    assert machine.at_once >= 4


def test_a_steps_start_up_is_told_by_the_drivers_own_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's is an hour off, and another machine's: it was placed 7 s ago and has worked for 4."""
    store, step = open_store(tmp_path), Step(STEP_KINDS["train"], "sft", {})
    store.record_times(step, {"started": -3600.0, "seconds": 4.0, "startup_seconds": 1.0})
    monkeypatch.setattr(cluster.time, "monotonic", lambda: 107.0)
    job: Any = SimpleNamespace(begun=100.0, entered=False)
    cluster.RayExecutor._note_startup(SimpleNamespace(store=store, ready_at={}), job, step)  # type: ignore[arg-type]
    assert store.times(step) == {"started": -3600.0, "seconds": 7.0, "startup_seconds": 4.0}


def test_a_training_takes_one_gpu_at_most() -> None:
    with pytest.raises(ValueError, match="gpus_per_training: must be at most 1, not 2"):
        Placement(gpus_per_training=2)
