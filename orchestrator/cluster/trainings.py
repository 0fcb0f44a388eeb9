"""Trainings on Ray's workers, through Ray Train.

On GPUs each training is a Ray Train job. On CPUs, where starting a job costs as much as a small training, one job per
node is started while the base is prepared; its workers import what they need and then take trainings from a queue
until it is closed.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from execution.execute import assist, attempt
from execution.step import Step
from execution.store import Store
from execution.workspace import own
from orchestrator.cluster.jobs import MARK, workers_of
from orchestrator.runtime.engines import Engines

TRAINING_CPUS = 0.8  # per worker: the rest is for tasks that run while a trainer waits
POLL = 0.2  # seconds between polls of the queue


def train(step: Step, store: Store, gpus: float, mark: int) -> None:
    """Run one Ray Train job that trains ``step`` on the number of workers in its config."""
    config = {"step": step, "store": store}
    _fit(_train_one, config, workers_of(step), gpus, mark, step.name)


def train_queued(queue: Any, group: int, workers: int, alone: bool, store: Store, mark: int) -> None:
    """Run one Ray Train job whose workers train steps from the queue, each ``alone`` or all together, until it ends."""
    config = {"queue": queue, "group": group, "alone": alone, "store": store}
    _fit(_train_queued, config, workers, 0, mark, f"trainers-{group}", alone)


def _fit(
    loop: Any,
    config: dict[str, Any],
    workers: int,
    gpus: float,
    mark: int,
    name: str,
    alone: bool = False,
) -> None:
    """Run a Ray Train job to its end: a ``TorchTrainer``, or for ``alone`` workers one without a process group.

    A training keeps its own resume state in the store, with and without Ray, so no Ray checkpoint is reported, only
    the number of finished and failed trainings. Ray's storage folder is temporary, for this attempt.
    """
    with _scratch() as folder:
        how: dict[str, Any] = {
            "train_loop_config": config,
            "scaling_config": ray.train.ScalingConfig(
                num_workers=workers,
                use_gpu=gpus > 0,
                placement_strategy="PACK" if gpus else "STRICT_PACK",
                resources_per_worker=({"GPU": gpus} if gpus else {"CPU": TRAINING_CPUS}) | {MARK: mark},
            ),
            "run_config": ray.train.RunConfig(name=name, storage_path=folder),
        }
        if alone:
            DataParallelTrainer(loop, **how).fit()
        else:
            from ray.train.torch import TorchConfig, TorchTrainer

            backend = "nccl" if gpus and workers > 1 else "gloo"
            TorchTrainer(loop, torch_config=TorchConfig(backend=backend), **how).fit()


def _train_one(config: dict[str, Any]) -> None:
    """Training loop on a worker of a job with one training."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(ray.train.torch.get_device())  # every worker sees all GPUs of the node's workers
    _compute(config["step"], config["store"], 1)


def _train_queued(config: dict[str, Any]) -> None:
    """Training loop on a trainer process; imports before it takes the first training."""
    importlib.import_module("methods.training.trainer")
    queue, number, rank = config["queue"], 0, ray.train.get_context().get_world_rank()
    while True:
        word, step = ray.get(queue.take.remote(config["group"], rank if config["alone"] else 0, number))
        if word == "end":
            return
        if word == "wait":
            time.sleep(POLL)
            continue
        number += 1
        if config["alone"]:  # no report, which in Ray Train waits for all workers of a job
            if not config["store"].done(step):
                attempt(step, config["store"], Engines())
        else:
            _compute(step, config["store"], number)


def _compute(step: Step, store: Store, number: int) -> None:
    """One training by all workers of the job; a failure is recorded.

    Rank 0 attempts the step and commits it; the others compute their units of each optimiser step.
    """
    first, error = ray.train.get_context().get_world_rank() == 0, None
    if first and not store.done(step):
        error = attempt(step, store, Engines())
    elif not first and not store.done(step):
        assist(step, store, Engines())
    if error is not None and workers_of(step) > 1:
        raise RuntimeError(error)  # ends the job: the others may be waiting for rank 0 within a step
    ray.train.report({"cells": number, "failed": int(error is not None)})


@contextmanager
def _scratch() -> Iterator[str]:
    """A temporary folder on this node for Ray's storage of one attempt; never read again."""
    with own("orchestrator-job-") as folder:
        yield str(folder)
