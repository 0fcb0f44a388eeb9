"""Remote functions and actors: thin wrappers that attempt steps and leave the results in the store.

Ray does not retry them: the driver counts the attempts at a step. Heavy libraries are imported where they are used:
the driver and most workers need neither Ray Train nor Ray Tune nor torch.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

import ray
from ray import PlacementGroupID
from ray.util.placement_group import PlacementGroup, remove_placement_group

from execution.context import Inputs, ParallelMap
from execution.execute import attempt, inputs_of
from execution.step import Step
from execution.store import Store
from orchestrator.cluster.packing import TrainingQueue
from orchestrator.cluster.sharing import map_within
from orchestrator.runtime.engines import Engines

# A job's placement groups request its mark as bytes of this resource, so that they can be identified later.
MARK = "memory"


@ray.remote(max_retries=0)
def perform_step(step: Step, store: Store, parallel_map: ParallelMap, slots: int) -> str | None:
    """Run a step as a plain task; ``parallel_map`` maps its items over further tasks. Returns its error or None."""
    error = attempt(step, store, Engines(), parallel_map, slots)
    free_gpu()
    return error


def free_gpu() -> None:
    """Free the memory that torch keeps of a GPU: Ray keeps this process, and an engine may be next on that GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


@ray.remote(num_cpus=0)
def warm() -> None:
    """Import what most steps need, ahead of the first step."""
    for module in ("methods.training.trainer", "analysis.function.cka"):
        importlib.import_module(module)


@ray.remote(max_restarts=0, max_task_retries=0)
class EngineActor:
    """Keeps one engine open between steps."""

    def __init__(self) -> None:
        self.engines = Engines()

    def warm(self, kind: str) -> None:
        """Import what an engine of this kind needs."""
        from evals.engines import prepare

        prepare(kind)

    def perform(self, step: Step, store: Store) -> str | None:
        return attempt(step, store, self.engines)


@ray.remote  # with Ray's retries: an item writes nothing, so it can be computed again on another node
def call(function: Callable[[Any, Inputs], Any], item: Any, step: Step, store: Store) -> Any:
    result = function(item, inputs_of(step, store))
    free_gpu()
    return result


def ray_map(step: Step, store: Store) -> ParallelMap:
    """The ``parallel_map`` of a cluster: one task per item, on a core each, results in order."""

    def parallel_map(function: Callable[[Any, Inputs], Any], items: Iterable[Any]) -> list[Any]:
        task = call.options(num_cpus=1)
        return ray.get([task.remote(function, item, step, store) for item in items])

    return parallel_map


def shared_map(step: Step, store: Store, shares: Any, mark: int) -> ParallelMap:
    """A ``parallel_map`` over the GPUs that the driver gives the job ``mark`` meanwhile: see ``sharing.py``."""

    def parallel_map(function: Callable[[Any, Inputs], Any], items: Iterable[Any]) -> list[Any]:
        task = call.options(num_cpus=1, num_gpus=1)

        def begin(item: Any) -> Any:
            return task.remote(function, item, step, store)

        def room(left: int) -> int:
            return ray.get(shares.room.remote(mark, left))

        return map_within(list(items), begin, room)

    return parallel_map


QueueActor = ray.remote(num_cpus=0, max_restarts=0)(TrainingQueue)


@ray.remote(num_cpus=0, max_retries=0)
def train_one(step: Step, store: Store, gpus: float, mark: int) -> None:
    """One Ray Train job that trains ``step`` on GPUs."""
    from orchestrator.cluster.trainings import train

    train(step, store, gpus, mark)


@ray.remote(num_cpus=0, max_retries=0)
def train_queued(queue: Any, group: int, workers: int, alone: bool, store: Store, mark: int) -> None:
    """One Ray Train job on CPUs whose workers train steps from the queue: each ``alone``, or all together."""
    from orchestrator.cluster.trainings import train_queued

    train_queued(queue, group, workers, alone, store, mark)


@ray.remote(num_cpus=0, max_retries=0)
def tune_sweep(steps: list[Step], store: Store, mark: int, queue: Any = None) -> None:
    """The sweep: Ray Tune over learning rates, whose trainings the driver places, or on CPUs take from the queue."""
    from orchestrator.cluster.tuning import tune

    tune(steps, store, mark, queue)


@ray.remote(num_cpus=0, max_retries=0)
def search_rates(step: Step, store: Store, asked: Any, at_once: int, mark: int) -> str | None:
    """A search by Ray Tune, whose trials ask for their steps through the actor ``asked``. Returns its error or None."""
    from orchestrator.cluster.asked import Ask
    from orchestrator.cluster.search import Tune

    ask = Ask(store, asked)
    return attempt(step, store, Engines(), ask=ask, tuner=Tune(ask, at_once, mark))


def clear(marks: Collection[int]) -> None:
    """Remove the placement groups of jobs that have ended.

    Ray keeps the group of a dead actor until the whole run ends, and Ray Train's own cleanup neither works without the
    dashboard nor covers groups whose workers had not started: each would hold its slot forever.
    """
    run = ray.get_runtime_context().get_job_id()
    for name, group in ray.util.placement_group_table().items():
        marked = any(bundle.get(MARK) in marks for bundle in group["bundles"].values())
        if marked and name.endswith(run) and group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def workers_of(step: Step) -> int:
    """Number of data-parallel workers of a training."""
    return int(step.config["workers"])
