"""What runs on Ray's workers: thin wrappers that attempt steps and leave the results in the store.

Ray retries none of them: the driver counts the attempts at a step, whatever ended them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
import ray.tune
import torch
from ray import PlacementGroupID
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import PlacementGroup, remove_placement_group

from evals.engines import prepare as import_engine
from orchestrator.context import Inputs, Share
from orchestrator.perform import Engines, assist, inputs_of
from orchestrator.plan import Step
from orchestrator.runner import attempt
from orchestrator.store import Store
from orchestrator.workspace import own

# Every placement group of a job asks for so many bytes of memory beside what it needs: by them it can be told later.
MARK = "memory"

# A trial only waits for the Ray Train job that it starts, but Tune gives none away for nothing. Both shares fit a core.
TRIAL_CPUS, TRAINING_CPUS = 0.02, 0.9


@ray.remote(max_retries=0)
def perform_step(step: Step, store: Store, share: Share, slots: int) -> str | None:
    """A step as a plain task; ``share`` lets it spread its items over further tasks. Its error, if any."""
    return attempt(step, store, Engines(), share=share, slots=slots)


@ray.remote(num_cpus=0)
def warm() -> None:
    """Import what most steps need, so that the worker has it when a step comes."""
    for module in ("methods.trainer", "analysis.cka"):
        importlib.import_module(module)


@ray.remote(max_restarts=0, max_task_retries=0)
class EngineActor:
    """Holds one engine open from step to step."""

    def __init__(self) -> None:
        self.engines = Engines()

    def warm(self, kind: str) -> None:
        """Import what an engine of this kind needs."""
        import_engine(kind)

    def perform(self, step: Step, store: Store) -> str | None:
        return attempt(step, store, self.engines)


@ray.remote  # Ray's own retries stay here: an item writes nothing, so it can be computed again on another node
def call(function: Callable[[Any, Inputs], Any], item: Any, step: Step, store: Store) -> Any:
    return function(item, inputs_of(step, store))


def run_shared(step: Step, store: Store, gpus: float) -> Share:
    """The ``share`` of a cluster: one task an item, results in the items' order."""

    def share(function: Callable[[Any, Inputs], Any], items: Iterable[Any]) -> list[Any]:
        task = call.options(num_cpus=1, num_gpus=gpus)
        return ray.get([task.remote(function, item, step, store) for item in items])

    return share


@ray.remote(num_cpus=0, max_retries=0)
def train_cells(steps: list[Step], store: Store, gpus: float, slots: int, mark: int) -> None:
    """One Ray Train job that trains ``steps`` one after another."""
    with _scratch() as folder:
        fit(steps, store, gpus, folder, mark)


@ray.remote(num_cpus=0, max_retries=0)
def tune_cells(steps: list[Step], store: Store, gpus: float, slots: int, mark: int) -> None:
    """The sweep: Ray Tune over learning rates, ``slots`` trials at once.

    A trial is a Ray Train job. On CPUs, where starting one costs as much as a small cell, a trial of one worker trains
    in its own process, which Tune keeps from trial to trial.
    """
    by_name = {step.name: step for step in steps}  # the longest first, as they were given
    alone = not gpus and workers_of(steps[0]) == 1

    def trial(config: dict[str, str]) -> None:
        step = by_name[config["cell"]]
        if alone:
            error = None if store.done(step) else attempt(step, store, Engines())
            ray.tune.report({"cells": 1, "failed": int(error is not None)})
        else:
            with _scratch() as folder:
                fit([step], store, gpus, folder, mark, [TuneReportCallback()])

    with _scratch() as folder:
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(trial, {"CPU": TRAINING_CPUS if alone else TRIAL_CPUS, MARK: mark}),
            param_space={"cell": ray.tune.grid_search(list(by_name))},
            tune_config=ray.tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=alone),
            run_config=ray.tune.RunConfig(name="sweep", storage_path=folder, verbose=0),
        )
        tuner.fit()


def fit(
    steps: list[Step], store: Store, gpus: float, folder: str, mark: int, callbacks: list[Any] | None = None
) -> None:
    """A ``TorchTrainer`` over a queue of cells, on as many workers as each of them asks for.

    A training keeps its own resume state in the store, the same with and without Ray, so no Ray checkpoint is
    reported: what is reported are the finished cells, and for Tune the cell's own summary. ``folder`` holds Ray's
    notes about this one attempt.
    """
    workers = workers_of(steps[0])
    trainer = TorchTrainer(
        _loop,
        train_loop_config={"steps": steps, "store": store},
        torch_config=TorchConfig(backend="nccl" if gpus and workers > 1 else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker=({"GPU": gpus} if gpus else {"CPU": TRAINING_CPUS}) | {MARK: mark},
        ),
        run_config=ray.train.RunConfig(name=steps[0].name, storage_path=folder, callbacks=callbacks or []),
    )
    trainer.fit()


def clear(marks: Collection[int]) -> None:
    """Remove the placement groups of jobs that have ended.

    Ray keeps the group of an actor that died until the whole run ends, and Ray Train's own cleaner neither works
    without the dashboard nor knows a group whose workers had not started: each would hold a slot for good.
    """
    run = ray.get_runtime_context().get_job_id()
    for name, group in ray.util.placement_group_table().items():
        marked = any(bundle.get(MARK) in marks for bundle in group["bundles"].values())
        if marked and name.endswith(run) and group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def workers_of(step: Step) -> int:
    """On how many workers a training runs data-parallel."""
    return int(step.config["workers"])


def _loop(config: dict[str, Any]) -> None:
    """On a training worker: each cell in turn; a cell that fails is recorded and the next one begins.

    The first worker attempts the step and commits it; the others compute their share of each optimiser step.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(ray.train.torch.get_device())  # Ray shows all workers of a node the GPUs of all of them
    store: Store = config["store"]
    first = ray.train.get_context().get_world_rank() == 0
    for done, step in enumerate(config["steps"], 1):
        error = None
        if first and not store.done(step):
            error = attempt(step, store, Engines())
        elif not first and not store.done(step):
            assist(step, store)
        if error is not None and workers_of(step) > 1:
            raise RuntimeError(error)  # the others may wait for this one in the middle of a step: they end with the job
        ray.train.report({"cells": done, "failed": int(error is not None)})


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder of this node for what Ray notes about one attempt; nothing is ever read from it again."""
    with own("orchestrator-job-") as folder:
        yield str(folder)
