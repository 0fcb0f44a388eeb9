"""export: every completion, as lm-evaluation-harness logs its samples."""

from __future__ import annotations

import argparse

from execution.errors import DONE
from orchestrator.commands.process import progress
from orchestrator.commands.run_folder import saved_run
from report.escape import tell


def main(options: argparse.Namespace) -> int:
    """Every completion that is finished, for other tools to read."""
    study, steps, store = saved_run(options)  # a refusal comes before the heavy imports
    from execution.runner import DagRunner
    from orchestrator.results.export import export

    export(study, DagRunner(steps, store, progress).survey().steps, store, options.to, tell)
    return DONE
