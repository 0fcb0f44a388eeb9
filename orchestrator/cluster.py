"""Places steps on Ray: trainings through Ray Train, the sweep through Ray Tune, engines as actors, the rest as tasks.

The store is the only channel for results: a worker commits its step, and the driver sees it there. A *slot* is what
one training takes: a GPU (or a fraction), or a CPU where there is none. Small cells share a trainer's start-up: on
CPUs one Ray Train job trains a queue of cells, on GPUs each cell has its own.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

from orchestrator.errors import UserError
from orchestrator.jobs import EngineActor, perform_step, run_shared, train_cells, tune_cells, warm
from orchestrator.plan import Step
from orchestrator.store import Store
from orchestrator.study import Placement
from orchestrator.threads import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("orchestrator", "methods", "analysis", "evals")
WARM_WORKERS = 3
POLL = 0.2  # seconds between two looks at the store
GPU_TASKS = ("reference",)  # single tasks that compute; collective ones share their computing out
ENGINE_KINDS = ("rollouts", "evaluate")


def join(address: str | None) -> None:
    """Start a local cluster on loopback, or join the one at ``address``. Workers get the four packages alone."""
    variables = {
        **ENVIRONMENT,
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # by default a finished training is noticed 2 s late, thrice
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    os.environ.update(variables)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    common: dict[str, Any] = {
        "runtime_env": {"py_modules": [str(ROOT / p) for p in PACKAGES], "env_vars": variables},
        **quiet,
    }
    if address:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # Ray does so for its own clusters alone
        try:
            ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"--address {address}: no Ray cluster can be joined there ({why}); see `ray status`"
            ) from None
    else:
        # Ray resolves even 127.0.0.1 to the machine's outward address unless it is told to keep to itself.
        ray_constants.ENABLE_RAY_CLUSTER = False
        warm = {"idle_worker_killing_time_threshold_ms": 600_000, "num_workers_soft_limit": 8}  # imports cost seconds
        ray.init(address="local", include_dashboard=False, _system_config=warm, **common)


@dataclass
class Job:
    """Steps given to one Ray task or actor call, and the GPUs (or CPUs) it holds."""

    steps: list[Step]
    ref: Any
    cost: float
    actor: Any = None
    begun: float = field(default_factory=time.time)
    entered: bool = False  # whether its first step has begun: until then it was starting up


@dataclass
class Cluster:
    """The executor on Ray."""

    store: Store
    placement: Placement
    trainings: list[Step] = field(default_factory=list)  # ready, not yet placed
    engine_steps: list[Step] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    idle: list[Any] = field(default_factory=list)  # engine actors without work
    coming: Sequence[Step] = ()

    def __post_init__(self) -> None:
        resources = ray.cluster_resources()
        self.gpus = int(resources.get("GPU", 0))
        # Free GPUs, or free CPUs where there is no GPU; engines on CPUs are not counted.
        self.free: float = self.gpus or int(resources["CPU"])
        self.training_cost = self.placement.gpus_per_training if self.gpus else 1
        self.engine_cost = 1 if self.gpus else 0
        a_device = math.floor(1 / self.training_cost)
        self.slots = int(self.free) * a_device
        self._warmed = False

    def start(self, steps: Sequence[Step], coming: Sequence[Step]) -> None:
        self.coming = coming
        self._warm([*steps, *coming])
        for step in steps:
            if step.kind == "train":
                self.trainings.append(step)
            elif step.kind == "evaluate" or (step.kind == "rollouts" and step.config["source"] != "file"):
                self.engine_steps.append(step)
            else:
                gpu = 1 if self.gpus and step.kind in GPU_TASKS else 0
                task = perform_step.options(num_cpus=1, num_gpus=gpu)
                self.jobs.append(Job([step], task.remote(step, self.store, self._share(step), self.slots), 0))
        self._place()

    def _warm(self, steps: Sequence[Step]) -> None:
        """Once, where CPUs are all there is: import the heavy libraries while the first step has a core to itself."""
        if self._warmed or self.gpus:
            return
        self._warmed = True
        kinds = {step.config["engine"]["kind"] for step in steps if "engine" in step.config}
        if kinds:
            actor = EngineActor.options(num_cpus=0).remote()  # type: ignore[attr-defined]  # Ray's decorator hides it
            actor.warm.remote(kinds.pop())
            self.idle.append(actor)
        for _ in range(min(WARM_WORKERS, len(steps))):
            warm.remote()

    def wait(self) -> list[tuple[Step, str | None]]:
        """Steps that have settled in the store, or whose worker died; looks again for five seconds at most."""
        for _ in range(int(5 / POLL)):
            found, ended = self._settled()
            if found or ended:
                self._place()  # a job gives its slot back some time after its last step has settled
            if found:
                return found
            time.sleep(POLL)
        return []

    def close(self) -> None:
        ray.shutdown()

    def _settled(self) -> tuple[list[tuple[Step, str | None]], bool]:
        """The steps that have settled since the last look, and whether any job has ended."""
        found: list[tuple[Step, str | None]] = []
        over = False
        for job in list(self.jobs):
            ended = bool(ray.wait([job.ref], timeout=0)[0])  # before the store is read: what it left is there
            for step in list(job.steps):
                if self.store.done(step):
                    self._note_startup(job, step)
                    found.append((step, None))
                elif (error := self.store.failure(step)) is not None:
                    found.append((step, error))
                else:
                    continue
                job.steps.remove(step)
            if ended:
                over = True
                if job.steps:
                    found.append((job.steps[0], self._death(job, job.steps[0])))
                    self.trainings += job.steps[1:]  # cells of its queue that had not begun
                self._release(job)
        return found, over

    def _note_startup(self, job: Job, step: Step) -> None:
        """What passed between placing a job and its first step's beginning is that step's start-up."""
        times = self.store.times(step)
        if not job.entered and times:
            waited = max(0.0, times["started"] - job.begun)
            times["startup_seconds"] += waited
            times["seconds"] += waited
            self.store.record_times(step, times)
        job.entered = True

    def _death(self, job: Job, step: Step) -> str:
        """A worker that ended without a word in the store: what it returned, or what Ray knows of it."""
        try:
            line = ray.get(job.ref) or "its worker ended without a result"
        except Exception as error:  # whatever Ray raises here is the reason, to be told
            line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            job.actor = None
        self.store.record_failure(step, line)
        return line

    def _release(self, job: Job) -> None:
        self.jobs.remove(job)
        self.free += job.cost
        if job.actor is None:
            return
        if self.gpus and not self.engine_steps:
            ray.kill(job.actor)  # an idle engine holds its GPU
        else:
            self.idle.append(job.actor)

    def _place(self) -> None:
        """Give ready work to what is free: to engines that are up, then to trainings, then to new engines."""
        self._place_engines(new=False)
        self._place_trainings()
        self._place_engines(new=True)

    def _place_trainings(self) -> None:
        """Trainings start together, when all are ready: the sweep first, for its cells are the longest."""
        if any(step.kind == "train" for step in self.coming) or not self.trainings:
            return
        sweep = [s for s in self.trainings if s.role == "sweep"]
        if sweep:
            sweep += [s for s in self.trainings if s.role == "method" and _same_but_rate(s, sweep[0])]
            rest = [s for s in self.trainings if s not in sweep]
            trials = min(len(sweep), max(1, self.slots // 2 if rest else self.slots))
            if self.free < trials * self.training_cost:
                return
            self._train(tune_cells, sweep, trials)
            self.trainings = rest
        while self.trainings and self.free >= self.training_cost:
            share = 1 if self.gpus else math.ceil(len(self.trainings) / self.free)
            self._train(train_cells, self.trainings[:share], 1)
            self.trainings = self.trainings[share:]

    def _train(self, job: Any, steps: list[Step], slots: int) -> None:
        gpus = self.training_cost if self.gpus else 0
        cost = slots * self.training_cost
        self.jobs.append(Job(list(steps), job.remote(steps, self.store, gpus, slots), cost))
        self.free -= cost

    def _place_engines(self, new: bool) -> None:
        """Engine steps to idle actors; to a new one where ``new`` and a device is free (on CPUs there is one actor)."""
        while self.engine_steps:
            if self.idle:
                actor = self.idle.pop()
            elif new and (self.free >= 1 if self.gpus else all(job.actor is None for job in self.jobs)):
                actor = EngineActor.options(num_cpus=0, num_gpus=self.engine_cost).remote()  # type: ignore[attr-defined]
            else:
                break
            step = self.engine_steps.pop(0)
            self.jobs.append(Job([step], actor.perform.remote(step, self.store), self.engine_cost, actor))
            self.free -= self.engine_cost
        if not any(s.kind in ENGINE_KINDS for s in (*self.coming, *self.engine_steps)):
            for actor in self.idle:
                ray.kill(actor)
            self.idle.clear()

    def _share(self, step: Step) -> Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]:
        return run_shared(1 if self.gpus and step.kind != "geometry" else 0)  # geometry is small algebra


def _same_but_rate(step: Step, other: Step) -> bool:
    """Whether two trainings differ in nothing but the learning rate."""

    def rest(s: Step) -> dict[str, Any]:
        return {k: v for k, v in s.config.items() if k != "learning_rate"}

    return rest(step) == rest(other)
