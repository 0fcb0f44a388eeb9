"""report: made again from what is finished."""

from __future__ import annotations

import argparse

from execution.errors import DONE, FAILED
from execution.store import check_names
from orchestrator.commands.process import progress
from orchestrator.commands.run_folder import saved_run
from orchestrator.runtime.threads import set_environment
from orchestrator.steps import STEP_KINDS
from report.escape import tell


def main(options: argparse.Namespace) -> int:
    """Rebuild the report from the store alone: at any time, with the geometry of the adapters that are there."""
    set_environment()
    study, steps, store = saved_run(options)  # a refusal comes before the heavy imports
    check_names(store.root, STEP_KINDS)
    from execution.runner import DagRunner
    from orchestrator.results.interim import early_geometry
    from orchestrator.results.write_report import write_report

    outcome = DagRunner(steps, store, progress).survey()
    with early_geometry(steps, outcome, store) as early:
        write_report(study, outcome, store, None, early)
    tell(f"report: {store.root / 'report' / 'report.html'}")
    return FAILED if outcome.failed else DONE
