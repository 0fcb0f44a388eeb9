"""Geometry for a report midway: of the adapters that are finished, made aside in seconds, and kept nowhere.

The run's own store is only read: a run may be at work in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from execution.execute import attempt
from execution.runner import Outcome
from execution.step import Step
from execution.storage import Folder
from execution.store import Store
from execution.workspace import own
from orchestrator.runtime.engines import Engines


@contextmanager
def early_geometry(plan: Sequence[Step], outcome: Outcome, store: Store) -> Iterator[dict[str, Path]]:
    """Where the geometry was not run yet: it joins the outcome, its folder by title while the block lasts."""
    step = next(
        (s.without(outcome.lost) for s in plan if s.kind.name == "geometry" and s.title in outcome.blocked), None
    )
    if step is None or len(step.inputs) < 2:
        yield {}
        return
    with own("orchestrator-early-") as folder:
        aside = Store(folder, Folder(folder))
        for other in step.inputs.values():
            link = folder / other.folder
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(store.folder(other), target_is_directory=True)
        error = attempt(step, aside, Engines())
        del outcome.blocked[step.title]
        if error is None:
            outcome.steps.append(step)
        else:
            outcome.failed[step.title] = error
        yield {} if error else {step.title: aside.folder(step)}
