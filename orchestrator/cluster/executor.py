"""Places steps on Ray: trainings through Ray Train, the sweep through Ray Tune, engines as actors, the rest as tasks.

The store is the only channel for results: a worker commits its step, and the driver sees it there. A *slot* is what
one training worker takes: a GPU (or a fraction), or a CPU if there are no GPUs. A step whose worker or node dies is
placed again, ``ATTEMPTS`` times in all; free resources follow nodes that join or leave.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import ray
from ray.exceptions import LocalRayletDiedError, RayActorError, RayError

from execution.errors import ClusterLost, last_line
from execution.step import Step
from execution.store import Store
from orchestrator.cluster.asked import Requests, trained_by
from orchestrator.cluster.connection import answering, leave, on_node
from orchestrator.cluster.engine_pool import EnginePool, Idle
from orchestrator.cluster.gpus import map_on_gpus, place_on_gpus
from orchestrator.cluster.jobs import (
    EngineActor,
    QueueActor,
    clear,
    perform_step,
    ray_map,
    search_rates,
    train_queued,
    tune_sweep,
    warm,
    workers_of,
)
from orchestrator.cluster.packing import Job, free_cpus, reads_files
from orchestrator.config.study import Placement

WARM_WORKERS = 1  # in addition to the first step's worker, which later steps reuse
POLL = 0.2  # seconds between polls of a store without round trips
LOOK = 5.0  # seconds between polls of the cluster's resources
TASK_CPUS = 0.1  # of a task that runs while trainer processes wait, which hold the rest of their cores
CPUS_A_SHARING_TASK = 2
ATTEMPTS = 3  # deaths of a step's worker, without a new shard in between, after which the step has failed


@dataclass
class RayExecutor:
    """The executor on a Ray cluster."""

    store: Store
    placement: Placement
    progress: Callable[[str], None] = lambda line: None
    ranks: Mapping[str, float] = field(default_factory=dict)  # by title, in any unit: the highest is placed first
    trainings: list[Step] = field(default_factory=list)  # ready, not yet placed
    tasks: list[Step] = field(default_factory=list)
    passes: list[Step] = field(default_factory=list)  # through a model; on CPUs those that no training waits for
    jobs: list[Job] = field(default_factory=list)
    coming: Sequence[Step] = ()
    deaths: Counter[str] = field(default_factory=Counter)
    kept: dict[str, int] = field(default_factory=dict)  # bytes saved by an engine's step when its worker last died

    def __post_init__(self) -> None:
        self.gpus = int(ray.cluster_resources().get("GPU", 0)) > 0
        self.total, self._looked = 0.0, float("-inf")
        self._nodes, self.largest = list[int](), 0  # the CPUs of each node, the GPUs of the largest
        self.marks, self._gone = count(1), set[int]()  # marks of training jobs: the next ones, those that have ended
        self.home, self.head = ray.get_runtime_context().get_node_id(), ray.get_runtime_context().gcs_address
        self._look()
        self.training_cost = self.placement.gpus_per_training if self.gpus else 1
        self.engines = EnginePool(self._new_engine, ray.kill, counted=self.gpus)
        # Without GPUs: the queue of trainings, the steps in it by title, and when each became ready.
        self.queue: Any = None
        self.queued: dict[str, Step] = {}
        self.ready_at: dict[str, float] = {}
        self._warmed = self._closed = False
        self.requests = Requests(self.store, self.progress, self.home)  # of running searches
        self.together = 1  # searches that share the slots
        self.shares: Any = None  # with GPUs: the actor that tells mapping tasks how many GPUs they have
        self.unsure = False  # whether a group has died while running several trainings
        self.barren, self.barren_line = 0, ""  # consecutive groups that died before training, and the last error

    @property
    def slots(self) -> int:
        """Number of training workers that fit the cluster at once."""
        return max(1, int(self.total) * math.floor(1 / self.training_cost))

    @property
    def free(self) -> float:
        """Free GPUs, or CPUs if there are no GPUs."""
        return self.total - sum(job.cost for job in self.jobs)

    def _look(self) -> None:
        """Update the cluster's resources. ``ClusterLost`` if it does not answer or the driver's node has died."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        answering(self.head)
        try:
            resources = ray.cluster_resources()
            nodes = [node for node in ray.nodes() if node["Alive"]]
            here = any(node["NodeID"] == self.home for node in nodes)
            clear(self._gone)
        except RayError as error:
            raise ClusterLost(f"the Ray cluster does not answer ({last_line(error)})") from None
        if not here:
            raise ClusterLost("the driver's node of the Ray cluster has died")
        self.total = resources.get("GPU", 0) if self.gpus else resources.get("CPU", 0)
        self._nodes = [int(node["Resources"].get("CPU", 0)) for node in nodes]
        self.largest = max((int(node["Resources"].get("GPU", 0)) for node in nodes), default=0)

    def rank(self, ranks: Mapping[str, float]) -> None:
        """Place steps by these ``ranks`` from now on."""
        self.ranks = ranks
        if self.queue is not None:
            self.queue.rank.remote(ranks)

    def start(self, steps: Sequence[Step], coming: Sequence[Step]) -> None:
        self.coming = coming
        self.requests.live |= {step.title for step in steps}
        if not self.gpus:
            self._warm_engine([*steps, *coming])
            at_work = [step for job in self.jobs for step in job.steps if step.runs_as == "task"]
            crowded = any(step.config.get("threads", 0) >= self.total for step in (*at_work, *steps))
            if not crowded or trained_by(steps):
                self._open_queue([*steps, *coming])
        self.together = max(1, sum(step.runs_as == "search" for step in (*self.searching, *steps)))
        for step in steps:
            self._queue(step)
        self._tune([step for step in steps if step.role == "sweep"] if self.gpus else [])
        self._place()

    def _tune(self, sweep: Sequence[Step]) -> None:
        """Start Ray Tune over the sweep's learning rates; its trials hold nothing and wait for their trainings."""
        if not sweep:
            return
        mark = next(self.marks)
        ref = tune_sweep.remote(list(sweep), self.store, mark, self.queue)
        self.jobs.append(Job([] if self.gpus else list(sweep), ref, 0, sweep=True, mark=mark))

    def _search(self, step: Step) -> None:
        """Start Ray Tune for it, with its share of the slots; what its trials ask for is placed like any step."""
        at_once = max(1, math.ceil(self.slots // workers_of(step.runtime["train"]) / self.together))
        mark = next(self.marks)
        ref = search_rates.remote(step, self.store, self.requests.open(), at_once, mark)
        self.jobs.append(Job([step], ref, 0, mark=mark))

    @property
    def searching(self) -> list[Step]:
        """The searches that run now."""
        return [step for job in self.jobs for step in job.steps if step.runs_as == "search"]

    def _queue(self, step: Step) -> None:
        if step.runs_as == "search":
            self._search(step)
        elif step.runs_as == "training":
            if self.gpus:
                self.trainings.append(step)
            else:
                self.queued[step.title], self.ready_at[step.title] = step, time.monotonic()
                self.queue.ready.remote(step, step.role != "sweep" or bool(self.deaths[step.title]))
        elif step.runs_as == "engine":
            self.engines.waiting = sorted([*self.engines.waiting, step], key=self.turn)
        elif step.kind.gpu == "task" and (self.gpus or not self._awaited(step)):
            self.passes = sorted([*self.passes, step], key=self.turn)
        else:
            self.tasks = sorted([*self.tasks, step], key=self.turn)

    def _awaited(self, step: Step) -> bool:
        """Whether a training still to come reads the step, of the plan or of a search's trials."""
        trainings = (other for other in self.coming if other.runs_as in ("training", "search"))
        return any(step.title == read.title for training in trainings for read in training.inputs.values())

    def turn(self, step: Step) -> float:
        """A sort key: highest rank first; ties keep the plan's order."""
        return -self.ranks.get(step.title, math.inf)  # those that a search asks for have none: the search waits

    def _warm_engine(self, steps: Sequence[Step]) -> None:
        """Once, without GPUs: import the engine's libraries in an actor while the base is prepared."""
        kinds = {step.config["engine"]["kind"] for step in steps if step.runs_as == "engine"}
        if not self._warmed and kinds:
            actor = self._new_engine(0)
            actor.warm.remote(kinds.pop())
            self.engines.idle.append(Idle(actor, 0))
        self._warmed = True

    @staticmethod
    def _new_engine(gpus: float) -> Any:
        """An actor whose engine spans this many GPUs of one node."""
        return EngineActor.options(num_cpus=0, num_gpus=gpus).remote()  # type: ignore[attr-defined]  # Ray hides it

    def _open_queue(self, steps: Sequence[Step]) -> None:
        """Once, without GPUs: start the queue, and Ray Tune, which requests the sweep's trainings there.

        Trainer processes then start at once (``_place_trainings``). Their imports are slow, so this happens as soon as
        a core is free: during pretraining of a base on one thread, or after pretraining on all.
        """
        trainings = trained_by(steps)
        if self.queue is not None or not trainings:
            return
        for _ in range(WARM_WORKERS):
            warm.remote()
        self._new_queue()
        self._tune(sorted((step for step in trainings if step.role == "sweep"), key=self.turn))

    def _new_queue(self) -> None:
        self.queue = QueueActor.options(scheduling_strategy=on_node(self.home)).remote(self.ranks)
        self._closed = False

    def wait(self) -> list[tuple[Step, str | None]]:
        """Steps that have ended in the store or whose worker died for the last time; polls for at most 5 s."""
        pause = max(POLL, self.store.storage.pace)
        for _ in range(math.ceil(5 / pause)):
            settled, ended = self._settled()
            settled = self.requests.settle(settled)
            for step in (asked := self.requests.new() if self.searching else []):
                self._queue(step)
            if settled:
                return settled  # what they let run is placed by start, before anything is closed for want of work
            if ended or asked or any(job.sharing and job.mark for job in self.jobs):
                self._place()  # a job frees its slot some time after its last step has ended, an item its GPU meanwhile
            time.sleep(pause)
        self._look()
        self._place()  # nodes may have joined
        return []

    def close(self) -> None:
        leave()

    def _settled(self) -> tuple[list[tuple[Step, str | None]], bool]:
        """The steps that have ended since the last call, with their errors, and whether any job has ended."""
        results, over = list[tuple[Step, str | None]](), False
        for job in list(self.jobs):
            ended = bool(ray.wait([job.ref], timeout=0)[0])  # before the store is read, so that its last result is seen
            steps = self._held(job) if ended or not job.group else []
            for step in list(steps):
                settled, error = self._look_up(step)
                if settled:
                    steps.remove(step)
                    job.failed |= error is not None
                    if not self._from_queue(step):  # queued steps are reported below
                        results.append((step, error))
                        self._note_startup(job, step)
            if ended:
                over = True
                line, died = self._last_word(job)
                self._release(job)
                if job.group:
                    self._note_barren(job, line)
                # Of several steps only the first, or the failed one, can have killed it; of a sweep's trials any.
                suspects = steps if job.sweep else steps[: 0 if job.failed and died else 1]
                if job.group and len(steps) > 1:  # unknown whose trainer died: from now on one job per training
                    suspects, self.unsure = [], True
                for step in steps:
                    if job.sweep and self._from_queue(step):
                        self.queue.ask.remote(step.title)  # so that it is trained without Tune
                        continue
                    error = self._again(step, line, died) if step in suspects else None
                    if error is None:
                        self._queue(step)
                    elif not self._from_queue(step):
                        results.append((step, error))
        listed = {folder for kind in {s.kind.name for s in self.queued.values()} for folder in self.store.ended(kind)}
        for step in [step for step in self.queued.values() if step.folder in listed]:
            settled, error = self._look_up(step)
            if settled:
                del self.queued[step.title]
                self._note_startup(self._trained_by(step), step)
                results.append((step, error))
        waits = all(job.sweep or any(step.runs_as == "search" for step in job.steps) for job in self.jobs)
        for step, line in self.engines.too_large(self.largest) if waits else []:  # nothing else is at work
            self.store.record_failure(step, line)
            results.append((step, line))
        return results, over

    def _look_up(self, step: Step) -> tuple[bool, str | None]:
        """Whether the step has ended by the store, and its error."""
        if self.store.done(step):
            return True, None
        error = self.store.failure(step)
        return error is not None, error

    def _from_queue(self, step: Step) -> bool:
        """Whether the step is trained from the queue, and so polled with ``queued`` instead of by job."""
        return self.queue is not None and step.runs_as == "training"

    def _note_barren(self, job: Job, line: str) -> None:
        """Count consecutive groups that died before any of their trainers took a training."""
        if self._closed or self._asked_queue("taken", job.group):
            self.barren = 0
            return
        self.barren += 1
        self.barren_line = f"trainer processes cannot start: {line}, {self.barren} times"

    def _held(self, job: Job) -> list[Step]:
        """A job's steps that have not ended; for trainer processes those they took from the queue."""
        if not job.group:
            return job.steps
        return [step for step in self._asked_queue("taken", job.group) or () if step.title in self.queued]

    def _trained_by(self, step: Step) -> Job | None:
        group = self._asked_queue("group_of", step.title)
        return next((job for job in self.jobs if job.group and job.group == group), None)

    def _asked_queue(self, method: str, *words: Any) -> Any:
        """The queue's answer; None if its process has died, in which case a new queue gets the remaining trainings."""
        try:
            return ray.get(getattr(self.queue, method).remote(*words))
        except RayActorError:
            self._new_queue()
            for step in self.queued.values():
                self.queue.ready.remote(step)
            return None

    def _again(self, step: Step, line: str, died: bool) -> str | None:
        """None if the step is to be tried again; else its error, which is also recorded."""
        if died and step.runs_as == "engine":  # it saves shard by shard: deaths do not count while it progresses
            kept = self.store.kept(step)
            if kept > self.kept.get(step.title, 0):
                self.deaths[step.title] = 0
            self.kept[step.title] = kept
        self.deaths[step.title] += 1
        if died and self.deaths[step.title] < ATTEMPTS:
            self.progress(f"{step.title}: {line}; placed again")
            return None
        if died:
            line = f"{line}, {ATTEMPTS} times"
        self.store.record_failure(step, line)
        return line

    def _note_startup(self, job: Job | None, step: Step) -> None:
        """Add the time from placing a job to the beginning of its first step to that step's start-up time.

        Measured by this process's monotonic clock alone, as clocks of nodes differ and can be changed.
        """
        if job is None:
            return
        times = self.store.times(step)
        if not job.entered and times:
            begun = max(job.begun, self.ready_at.get(step.title, job.begun))
            waited = max(0.0, time.monotonic() - begun - times["seconds"])
            times["startup_seconds"] += waited
            times["seconds"] += waited
            self.store.record_times(step, times)
        job.entered = True

    def _last_word(self, job: Job) -> tuple[str, bool]:
        """(error, whether the job died): a step's own error is not tried again, a death is."""
        try:
            said = ray.get(job.ref)
            return (said, False) if said else ("its worker ended without a result", True)
        except LocalRayletDiedError:
            raise ClusterLost("the driver's node of the Ray cluster has died") from None
        except RayError as error:
            if job.actor is not None:  # of an engine on several GPUs another process may have died
                ray.kill(job.actor)
                job.actor = None
            return f"its worker died ({last_line(error)})", True

    def _release(self, job: Job) -> None:
        self.jobs.remove(job)
        self._gone |= {job.mark} - {0}
        if job.actor is not None:
            self.engines.idle.append(Idle(job.actor, job.cost, job.opened))

    def _place(self) -> None:
        """Place ready steps on free resources: tasks; on GPUs then all by rank, on CPUs steps of open engines,
        trainings, passes, then new engines."""
        self._look()
        self._place_tasks()
        if self.gpus:
            place_on_gpus(self)
            return
        self._place_engines(new=False)
        if self.queue is not None:
            self._place_trainers()
        self._place_passes()
        self._place_engines(new=True)

    def _place_tasks(self) -> None:
        """Submit all tasks to Ray, which queues them itself.

        Without GPUs, tasks that map over further tasks take turns: each process that they start imports for seconds.
        """
        waiting: list[Step] = []
        sharing = sum(job.sharing for job in self.jobs)
        for step in self.tasks:
            if step.collective and not self.gpus and sharing >= max(1, int(self.total) // CPUS_A_SHARING_TASK):
                waiting.append(step)
                continue
            sharing += bool(step.collective)
            options: dict[str, Any] = {"num_cpus": 1 if self.gpus else TASK_CPUS, "num_gpus": 0}
            if reads_files(step):
                options |= {"scheduling_strategy": on_node(self.home), "num_cpus": 0}  # a head may have no CPUs
            mark = next(self.marks) if self.gpus and step.kind.gpu == "items" else 0
            mapped = map_on_gpus(self, step, mark) if mark else ray_map(step, self.store)
            ref = perform_step.options(**options).remote(step, self.store, mapped, self.slots)
            self.jobs.append(Job([step], ref, 0, sharing=bool(step.collective), mark=mark))
        self.tasks = waiting

    def _place_passes(self) -> None:
        """Give each a free core: there may be hundreds, of which each loads a base."""
        while self.passes and self.free >= 1:
            self.perform_pass(self.passes.pop(0))

    def perform_pass(self, step: Step) -> None:
        """On a GPU, or on a core."""
        task = perform_step.options(num_cpus=1, num_gpus=int(self.gpus))  # type: ignore[attr-defined]  # Ray hides it
        self.jobs.append(Job([step], task.remote(step, self.store, ray_map(step, self.store), self.slots), 1))

    def _place_trainers(self) -> None:
        wanted = [*self.queued.values(), *trained_by([*self.coming, *self.searching])]
        if not wanted:
            if not self._closed:
                self._closed = True
                self.queue.close.remote()
            return
        if self.barren >= ATTEMPTS:  # another group would die too: the waiting trainings fail
            for step in self.queued.values():
                self.store.record_failure(step, self.barren_line)
            return
        workers = workers_of(wanted[0])
        held = sum(job.cost for job in self.jobs if job.group)
        missing = min(len(wanted) * workers, max(workers, self.slots // workers * workers)) - int(held)
        while missing >= workers and workers <= self.free:
            size = workers
            if workers == 1 and not self.unsure:
                rooms = free_cpus(self._nodes, [int(job.cost) for job in self.jobs if job.group])
                size = max(1, min(missing, max(rooms, default=1), int(self.free)))
            mark = next(self.marks)
            ref = train_queued.remote(self.queue, mark, size, workers == 1, self.store, mark)
            self.jobs.append(Job([], ref, size, mark=mark, group=mark))
            missing -= size

    def _place_engines(self, new: bool) -> None:
        """Give engine steps to idle actors; with ``new``, start one if none is at work: one in all on CPUs."""
        may = new and all(job.actor is None for job in self.jobs)
        while (placed := self.engines.next(may)) is not None:
            may = False
            self.answer(*placed)
        if not self.searching and not any(s.runs_as == "engine" for s in (*self.coming, *self.engines.waiting)):
            self.engines.end_idle()

    def answer(self, step: Step, actor: Any, gpus: float) -> None:
        """Give an engine's step to an actor that holds so many GPUs."""
        self.jobs.append(Job([step], actor.perform.remote(step, self.store), gpus, actor, opened=step))
