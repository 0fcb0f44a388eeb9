"""Trainings on Ray's workers: queues of them through Ray Train, the sweep through Ray Tune."""

from __future__ import annotations

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

# A trial only waits for the Ray Train job that it starts, but Tune gives none away for nothing. Both shares fit a core.
TRIAL_CPUS, TRAINING_CPUS = 0.02, 0.9


def train(steps: list[Step], store: Store, gpus: float, mark: int) -> None:
    """One Ray Train job that trains ``steps`` one after another."""
    with _scratch() as folder:
        _fit(steps, store, gpus, folder, mark)


def tune(steps: list[Step], store: Store, gpus: float, slots: int, mark: int) -> None:
    """Ray Tune over learning rates, ``slots`` trials at once.

    A trial is a Ray Train job. On CPUs, where starting one costs as much as a small training, a trial of one worker
    trains in its own process, which Tune keeps from trial to trial.
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
                _fit([step], store, gpus, folder, mark, [TuneReportCallback()])

    with _scratch() as folder:
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(trial, {"CPU": TRAINING_CPUS if alone else TRIAL_CPUS, MARK: mark}),
            param_space={"cell": ray.tune.grid_search(list(by_name))},
            tune_config=ray.tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=alone),
            run_config=ray.tune.RunConfig(name="sweep", storage_path=folder, verbose=0),
        )
        tuner.fit()


def _fit(
    steps: list[Step], store: Store, gpus: float, folder: str, mark: int, callbacks: list[Any] | None = None
) -> None:
    """A ``TorchTrainer`` over a queue of trainings, on as many workers as each of them asks for.

    A training keeps its own resume state in the store, the same with and without Ray, so no Ray checkpoint is
    reported: what is reported are the finished trainings, and for Tune the training's own summary. ``folder`` holds
    Ray's notes about this one attempt.
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


def _loop(config: dict[str, Any]) -> None:
    """On a training worker: each training in turn; one that fails is recorded and the next one begins.

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
            assist(step, store, Engines())
        if error is not None and workers_of(step) > 1:
            raise RuntimeError(error)  # the others may wait for this one in the middle of a step: they end with the job
        ray.train.report({"cells": done, "failed": int(error is not None)})


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder of this node for what Ray notes about one attempt; nothing is ever read from it again."""
    with own("orchestrator-job-") as folder:
        yield str(folder)
