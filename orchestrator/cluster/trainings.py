"""Trainings on Ray's workers: through Ray Train, the sweep's through Ray Tune.

On GPUs a training is a Ray Train job of its own. On CPUs, where starting a job costs as much as a small training, a few
jobs are started while the base is still being made ready; their workers import what they need and then take trainings
from one queue until it is closed.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
import ray.tune
import torch
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from execution.execute import assist, attempt
from execution.step import Step
from execution.store import Store
from execution.workspace import own
from orchestrator.cluster.jobs import MARK, workers_of
from orchestrator.runtime.engines import Engines

# Shares of a core. A trial only waits for a training, but Tune gives none away for nothing. What a trainer process
# leaves of its core is for the steps that run while it waits.
TRIAL_CPUS, TRAINING_CPUS = 0.02, 0.8
POLL = 0.2  # seconds between two looks at the queue, or at the store


def train(step: Step, store: Store, gpus: float, mark: int, callbacks: list[Any] | None = None) -> None:
    """One Ray Train job that trains ``step``, on as many workers as it asks for."""
    _fit(_train_one, {"step": step, "store": store}, workers_of(step), gpus, mark, step.name, callbacks)


def train_queued(queue: Any, group: int, workers: int, store: Store, mark: int) -> None:
    """One Ray Train job whose workers train what the queue gives them, until it is closed."""
    _fit(_train_queued, {"queue": queue, "group": group, "store": store}, workers, 0, mark, f"trainers-{group}")


def tune(steps: list[Step], store: Store, gpus: float, slots: int, mark: int, queue: Any = None) -> None:
    """Ray Tune over learning rates, ``slots`` trials at once.

    A trial is a Ray Train job, or, where there is a ``queue``, a training that is asked for there.
    """
    by_name = {step.name: step for step in steps}  # the longest first, as they were given

    def trial(config: dict[str, str]) -> None:
        step = by_name[config["cell"]]
        if queue is None:
            train(step, store, gpus, mark, [TuneReportCallback()])
            return
        ray.get(queue.ask.remote(step.title))
        while not store.done(step) and store.failure(step) is None:
            time.sleep(max(POLL, store.storage.pace))
        ray.tune.report({"cells": 1, "failed": int(not store.done(step))})

    with _scratch() as folder:
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(trial, {"CPU": TRIAL_CPUS, MARK: mark}),
            param_space={"cell": ray.tune.grid_search(list(by_name))},
            tune_config=ray.tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=queue is not None),
            run_config=ray.tune.RunConfig(name="sweep", storage_path=folder, verbose=0),
        )
        tuner.fit()


def _fit(
    loop: Any, config: dict[str, Any], workers: int, gpus: float, mark: int, name: str, callbacks: Any = None
) -> None:
    """A ``TorchTrainer`` to its end.

    A training keeps its own resume state in the store, the same with and without Ray, so no Ray checkpoint is
    reported: what is reported are the finished trainings, and for Tune the training's own summary. The folder given to
    Ray holds its notes about this one attempt.
    """
    with _scratch() as folder:
        trainer = TorchTrainer(
            loop,
            train_loop_config=config,
            torch_config=TorchConfig(backend="nccl" if gpus and workers > 1 else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers,
                use_gpu=gpus > 0,
                resources_per_worker=({"GPU": gpus} if gpus else {"CPU": TRAINING_CPUS}) | {MARK: mark},
            ),
            run_config=ray.train.RunConfig(name=name, storage_path=folder, callbacks=callbacks or []),
        )
        trainer.fit()


def _train_one(config: dict[str, Any]) -> None:
    """On a worker of a job of one training."""
    if torch.cuda.is_available():
        torch.cuda.set_device(ray.train.torch.get_device())  # Ray shows all workers of a node the GPUs of all of them
    _compute(config["step"], config["store"], 1)


def _train_queued(config: dict[str, Any]) -> None:
    """On a trainer process: what the first steps import comes before the first of them."""
    importlib.import_module("methods.trainer")
    queue, number = config["queue"], 0
    while True:
        word, step = ray.get(queue.take.remote(config["group"], number))
        if word == "end":
            return
        if word == "train":
            number += 1
            _compute(step, config["store"], number)
        else:
            time.sleep(POLL)


def _compute(step: Step, store: Store, number: int) -> None:
    """One training; one that fails is recorded.

    The first worker attempts the step and commits it; the others compute their share of each optimiser step.
    """
    first, error = ray.train.get_context().get_world_rank() == 0, None
    if first and not store.done(step):
        error = attempt(step, store, Engines())
    elif not first and not store.done(step):
        assist(step, store, Engines())
    if error is not None and workers_of(step) > 1:
        raise RuntimeError(error)  # the others may wait for this one in the middle of a step: they end with the job
    ray.train.report({"cells": number, "failed": int(error is not None)})


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder of this node for what Ray notes about one attempt; nothing is ever read from it again."""
    with own("orchestrator-job-") as folder:
        yield str(folder)
