"""The learning rate sweep, through Ray Tune."""

from __future__ import annotations

import time
from typing import Any

import ray
import ray.tune

from execution.step import Step
from execution.store import Store
from execution.workspace import own
from orchestrator.cluster.jobs import MARK

TRIAL_CPUS = 0.02  # a trial only waits for a training, but Tune requires a resource
POLL = 0.5  # seconds between polls of the store


def tune(steps: list[Step], store: Store, mark: int, queue: Any = None) -> None:
    """Ray Tune over learning rates. A trial holds nothing and waits for its training, which it requests from the
    ``queue``; without one, on GPUs, the driver places it as it does any other, the longest first."""
    by_name = {step.name: step for step in steps}

    def trial(config: dict[str, str]) -> None:
        step = by_name[config["cell"]]
        if queue is not None:
            ray.get(queue.ask.remote(step.title))
        while not store.done(step) and store.failure(step) is None:
            time.sleep(max(POLL, store.storage.pace))
        ray.tune.report({"cells": 1, "failed": int(not store.done(step))})

    trial.__name__ = f"sweep_{mark}"  # Ray has one function of a name
    with own("orchestrator-job-") as folder:
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(trial, {"CPU": TRIAL_CPUS, MARK: mark}),
            param_space={"cell": ray.tune.grid_search(list(by_name))},
            tune_config=ray.tune.TuneConfig(max_concurrent_trials=len(steps), reuse_actors=True),
            run_config=ray.tune.RunConfig(name="sweep", storage_path=str(folder), verbose=0),
        )
        tuner.fit()
