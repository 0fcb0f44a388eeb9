"""What runs on Ray's workers: thin wrappers that attempt steps and leave the results in the store."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from evals.engines import prepare
from orchestrator.perform import Engines
from orchestrator.plan import Step
from orchestrator.runner import attempt
from orchestrator.store import Store

# A trial only waits for the Ray Train job that it starts, but Tune gives none away for nothing. Both shares fit a core.
TRIAL_CPUS, TRAINING_CPUS = 0.02, 0.9


@ray.remote
def perform_step(step: Step, store: Store, share: Any, slots: int) -> str | None:
    """A step as a plain task; ``share`` lets it spread its items over further tasks. Its error, if any."""
    return attempt(step, store, Engines(), share=share, slots=slots)


@ray.remote(num_cpus=0)
def warm() -> None:
    """Import what most steps need, so that the worker has it when a step comes."""
    for module in ("methods.trainer", "analysis.cka"):
        importlib.import_module(module)


@ray.remote
class EngineActor:
    """Holds one engine open from step to step."""

    def __init__(self) -> None:
        self.engines = Engines()

    def warm(self, kind: str) -> None:
        """Import what an engine of this kind needs."""
        prepare(kind)

    def perform(self, step: Step, store: Store) -> str | None:
        return attempt(step, store, self.engines)


@ray.remote
def call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


def run_shared(gpus: float) -> Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]:
    """The ``share`` of a cluster: one task an item, results in the items' order."""

    def share(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        task = call.options(num_cpus=1, num_gpus=gpus)
        return ray.get([task.remote(function, item) for item in items])

    return share


@ray.remote(num_cpus=0)
def train_cells(steps: list[Step], store: Store, gpus: float, slots: int) -> None:
    """One Ray Train job that trains ``steps`` one after another."""
    fit(steps, store, gpus)


@ray.remote(num_cpus=0)
def tune_cells(steps: list[Step], store: Store, gpus: float, slots: int) -> None:
    """The sweep: Ray Tune over learning rates, ``slots`` trials at once, each trial a Ray Train job."""
    by_rate = {step.config["learning_rate"]: step for step in steps}

    def trial(config: dict[str, float]) -> None:
        fit([by_rate[config["learning_rate"]]], store, gpus, callbacks=[TuneReportCallback()])

    tuner = ray.tune.Tuner(
        ray.tune.with_resources(trial, {"CPU": TRIAL_CPUS}),
        param_space={"learning_rate": ray.tune.grid_search(sorted(by_rate))},
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=slots),
        run_config=ray.tune.RunConfig(name="sweep", storage_path=str(_ray_folder(store)), verbose=0),
    )
    tuner.fit()


def fit(steps: list[Step], store: Store, gpus: float, callbacks: list[Any] | None = None) -> None:
    """A ``TorchTrainer`` on one worker over a queue of cells.

    A training keeps its own resume state in the store's partial folder, the same with and without Ray, so no Ray
    checkpoint is reported: what is reported are the finished cells, and for Tune the cell's own summary.
    """
    trainer = TorchTrainer(
        _loop,
        train_loop_config={"steps": steps, "store": store},
        scaling_config=ray.train.ScalingConfig(
            num_workers=1,
            use_gpu=gpus > 0,
            resources_per_worker={"GPU": gpus} if gpus else {"CPU": TRAINING_CPUS},
        ),
        run_config=ray.train.RunConfig(
            name=f"{steps[0].name}-{steps[0].key}",
            storage_path=str(_ray_folder(store)),
            callbacks=callbacks or [],
        ),
    )
    trainer.fit()


def _loop(config: dict[str, Any]) -> None:
    """On the training worker: each cell in turn; a cell that fails is recorded and the next one begins."""
    store: Store = config["store"]
    for done, step in enumerate(config["steps"], 1):
        error = None if store.done(step) else attempt(step, store, Engines())
        ray.train.report({"cells": done, "failed": int(error is not None)})


def _ray_folder(store: Store) -> Path:
    return (store.root / "partial" / "ray").resolve()
