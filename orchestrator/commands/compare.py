"""compare: the geometry of any adapters, without a study (``orchestrator/compare``)."""

from __future__ import annotations

import argparse

from orchestrator.commands.process import progress, stoppable
from orchestrator.runtime.threads import set_environment


def main(options: argparse.Namespace) -> int:
    """The geometry of any adapters, without a study."""
    set_environment()
    from orchestrator.compare.compare import compare

    with stoppable():
        return compare(options, progress)
