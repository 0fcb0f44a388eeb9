"""Who gets a GPU next: of all that is ready the highest rank first, as ``planning/schedule.py`` plans it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayActorError

from execution.context import ParallelMap
from execution.errors import ClusterLost
from execution.step import Step
from orchestrator.cluster.connection import on_node
from orchestrator.cluster.jobs import shared_map, train_one, workers_of
from orchestrator.cluster.packing import Job, fitting
from orchestrator.cluster.sharing import SharesActor

if TYPE_CHECKING:
    from orchestrator.cluster.executor import RayExecutor


def place_on_gpus(executor: RayExecutor) -> None:
    """Give free GPUs to what is ready, the highest rank first; a step that does not fit lets lower ones pass.

    An open engine goes on with an engine's step of as many GPUs if one is next in turn, else it is closed.
    """
    sharing = _sharing(executor)
    pieces = [job.steps[0] for job, more in sharing for _ in range(more)]
    served = [step for step in executor.engines.waiting if executor.engines.gpus_of(step) <= max(1, executor.largest)]
    ready = [*executor.trainings, *served, *executor.passes, *pieces]
    placed = fitting(sorted(ready, key=executor.turn), lambda step: _gpus_of(step, executor), executor.free)
    for step in placed:
        if step.runs_as == "training":
            executor.trainings.remove(step)
            mark = next(executor.marks)
            ref = train_one.remote(step, executor.store, executor.training_cost, mark)
            executor.jobs.append(Job([step], ref, _gpus_of(step, executor), mark=mark))
        elif step.runs_as == "engine":
            executor.answer(step, *executor.engines.take(step))
        elif step.kind.gpu == "task":
            executor.passes.remove(step)
            executor.perform_pass(step)
        else:
            next(job for job, _ in sharing if job.steps[0] is step).cost += 1
    for job, _ in sharing:
        executor.shares.give.remote(job.mark, int(job.cost))
    executor.engines.end_idle()  # without work it holds its GPUs


def map_on_gpus(executor: RayExecutor, step: Step, mark: int) -> ParallelMap:
    """For a step that maps items: each takes a GPU, as many at once as ``place_on_gpus`` gives the job ``mark``."""
    if executor.shares is None:
        executor.shares = SharesActor.options(scheduling_strategy=on_node(executor.home)).remote()
    return shared_map(step, executor.store, executor.shares, mark)


def _gpus_of(step: Step, executor: RayExecutor) -> float:
    """GPUs that it holds; of a step that maps items one of them, for one item after another."""
    if step.runs_as == "training":
        return executor.training_cost * workers_of(step)
    return executor.engines.gpus_of(step) if step.runs_as == "engine" else 1


def _sharing(executor: RayExecutor) -> list[tuple[Job, int]]:
    """The jobs that map items over GPUs, and how many more GPUs each can use. What it no longer needs is free again.

    ``ClusterLost`` if the actor has died, on which the items wait.
    """
    jobs = [job for job in executor.jobs if job.sharing and job.mark and job.steps]
    try:
        left = ray.get(executor.shares.left.remote()) if jobs else {}
    except RayActorError:
        raise ClusterLost("the process that shares GPUs out has died") from None
    for job in jobs:
        job.cost = min(job.cost, left.get(job.mark, 0))
    return [(job, left.get(job.mark, 0) - int(job.cost)) for job in jobs]
