"""What each step was estimated to take when its run began, kept beside the run, for its report."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from execution.step import Step
from execution.store import Store, read_json, write_json
from orchestrator.config.study import Study
from orchestrator.planning.schedule import needs
from orchestrator.timing.rates import Estimate

FILE = "estimates.json"


def keep(study: Study, steps: Sequence[Step], store: Store, found: Mapping[str, Estimate] | None, gpus: int) -> None:
    """Keep the estimates of the steps that are not done; those of finished ones stay as they were when they began.

    A step of several parts counts as if all of them ran at once, on as many of the ``gpus`` as it can use.
    """
    if found is None:
        return
    wanted = needs(study, steps, gpus) if gpus else {}
    told = read_json(store.root / FILE)
    for step in steps:
        if not store.done(step):
            estimate, parts = found[step.title], wanted[step.title].parts if gpus else 1
            told[step.folder] = {"seconds": estimate.seconds / parts, "rate": estimate.source}
    with contextlib.suppress(OSError):  # it decides nothing
        write_json(store.root / FILE, told)


def read(store: Store) -> dict[str, dict[str, Any]]:
    """By a step's folder its ``estimated_seconds`` and their ``rate``."""
    found = {}
    for folder, told in read_json(store.root / FILE).items():
        if isinstance(told, dict) and isinstance(told.get("seconds"), int | float):
            found[folder] = {"estimated_seconds": told["seconds"], "rate": str(told.get("rate"))}
    return found
