"""status: how far a run is."""

from __future__ import annotations

import argparse

from execution.errors import DONE
from execution.lease import left_behind
from orchestrator.commands.run_folder import saved_run
from report.escape import tell


def main(options: argparse.Namespace) -> int:
    """How far a run is, from its folder alone."""
    study, steps, store = saved_run(options)
    counts: dict[str, int] = {}
    dead = left_behind(store.storage)
    widest = max(len(step.title) for step in steps)
    for step in steps:
        if store.done(step):
            seconds = store.times(step).get("seconds")
            state, more = "done", f"{seconds:.1f} s" if isinstance(seconds, int | float) else "-"
        elif store.spoilt(step):
            state, more = "damaged", "its record was changed: run makes it again"
        elif (error := store.failure(step)) is not None:
            state, more = "failed", error
        elif store.begun(step):
            state, more = "begun", store.progress(step)
            more = f"stopped at {more}" if dead and more else more
        else:
            state, more = "to do", ""
        counts[state] = counts.get(state, 0) + 1
        tell(f"{step.title.ljust(widest)}  {state:<8}{more}")
    tell(f"{study.name}: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    if any(step.kind.name == "search" and not store.done(step) and not store.failure(step) for step in steps):
        tell("more trainings follow once the learning rates are chosen: plan says which")
    return DONE
