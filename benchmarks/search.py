"""ASHA beside the grid: DPO, and RFT, at sixteen learning rates on the default study's base.

    python benchmarks/search.py [FOLDER]

No rate of DPO raises this base's accuracy, so that several are equally good; RFT's rises with the rate and falls again,
so that there is a best one to find. Prints, of both and for each: optimiser steps trained, the chosen rate, its
accuracy on 250 held-out problems; and whether ASHA's rate, trained to its end, is within one standard error of the
grid's best. Half of the rollouts' problems are held out, so that an accuracy has a standard error of three points. In
FOLDER (default: a temporary one) the grid finds what ASHA trained to the end. About fifteen minutes on two cores. Run
nothing else at the same time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from execution.runner import DagRunner  # noqa: E402
from execution.store import open_store  # noqa: E402
from orchestrator.cluster.connection import join  # noqa: E402
from orchestrator.cluster.executor import RayExecutor  # noqa: E402
from orchestrator.config.study_file import load_study  # noqa: E402
from orchestrator.planning.plan import make_plan  # noqa: E402
from orchestrator.planning.resolve import gather  # noqa: E402
from orchestrator.steps.trials.search import SEARCH  # noqa: E402

TINY = ROOT / "configs" / "tiny.yaml"
RATES = [float(f"{1e-5 * 10 ** (k / 5):.2e}") for k in range(16)]  # 1e-5 to 1e-2
METHODS = ("dpo", "rft")
NEEDED = ("base", "rollouts", "reference", "search")


def search(root: Path, method: str, **how: Any) -> dict[str, Any]:
    """The result of a method's search in the store at ``root``, with its ``seconds``; its own steps only are run."""
    chosen = {"methods": [method], "learning_rates": RATES, **how}
    given = [f"search={json.dumps(chosen)}", "rollouts.table.heldout=0.5", *sys.argv[2:]]
    study = load_study(TINY, given)
    store = open_store(root)
    steps = [s for s in make_plan(study, gather(study, root, online=False)) if s.kind.name in NEEDED]
    begun = time.monotonic()

    def cluster() -> RayExecutor:
        join(None, print)
        return RayExecutor(store, study.placement)

    outcome = DagRunner(steps, store, print).run(cluster)
    if outcome.lost:
        raise SystemExit(f"failed: {outcome.failed}")
    (step,) = (step for step in outcome.steps if step.kind.name == "search")
    return json.loads((store.folder(step) / SEARCH).read_text()) | {"seconds": time.monotonic() - begun}


def last(found: dict[str, Any], rate: float) -> dict[str, Any]:
    return next(trial for trial in found["trials"] if trial["learning_rate"] == rate)["rungs"][-1]


def beside_the_grid(root: Path, method: str) -> None:
    asha = search(root, method, algorithm="asha", reduction=4)
    grid = search(root, method)
    for name, found in (("asha", asha), ("grid", grid)):
        rung = last(found, found["learning_rate"])
        stopped = sum(trial["status"] == "stopped" for trial in found["trials"])
        told = f"best {found['learning_rate']:g}, {rung['accuracy']:.3f} (standard error {rung['standard_error']:.3f})"
        took = f"{found['steps']} steps of {found['full_steps']}, {stopped} stopped, {found['seconds']:.0f} s"
        print(f"{method}, {name}: {took}; {told}")
    for trial in grid["trials"]:
        print(f"  {trial['learning_rate']:<10g}{trial['rungs'][-1]['accuracy']:.3f}" if trial["rungs"] else "  failed")
    best = last(grid, grid["learning_rate"])
    behind = best["accuracy"] - last(grid, asha["learning_rate"])["accuracy"]
    within = "within" if behind <= best["standard_error"] else "not within"
    share = asha["steps"] / grid["steps"]
    print(f"{method}: asha trained {share:.0%} of the grid's steps; its rate is {within} a standard error")


def main(root: Path) -> None:
    for method in METHODS:
        beside_the_grid(root, method)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
