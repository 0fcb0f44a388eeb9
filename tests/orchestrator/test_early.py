"""Geometry for a report midway: made aside, and one that cannot be made is a line of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from execution.context import Context
from execution.runner import DagRunner
from execution.step import Step
from execution.store import open_store
from orchestrator.config.study import Study
from orchestrator.results.interim import early_geometry
from orchestrator.steps.train import adapters


@pytest.mark.parametrize("broken", [False, True])
def test_it_is_made_of_what_is_finished_and_the_store_is_only_read(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], stand_in: Any, tmp_path: Path,
    broken: bool,
) -> None:  # fmt: skip
    plan, store = plan_of(make_study()), open_store(tmp_path / "store")
    trained = [step.title for step in plan if step.kind.name == "train"]
    DagRunner(plan, store, lambda line: None).run(lambda: stand_in(store, fails=[*trained[2:], "geometry/weights"]))
    for step in plan:
        store.clear_failure(step)  # as if they were still to come
        store.clear_failure(step.without(trained[2:]))

    def measure(context: Context) -> None:
        if broken:
            raise RuntimeError("the adapter holds NaN")
        (context.out / "names").write_text(" ".join(adapters(context.inputs)))

    plan = [
        replace(step, kind=replace(step.kind, run=measure)) if step.kind.name == "geometry" else step for step in plan
    ]
    before = sorted(p for p in store.root.rglob("*"))
    outcome = DagRunner(plan, store, lambda line: None).survey()
    with early_geometry(plan, outcome, store) as early:
        if broken:
            assert early == {} and outcome.failed["geometry/weights"] == "RuntimeError: the adapter holds NaN"
        else:
            assert (early["geometry/weights"] / "names").read_text() == "sft rft"
            assert outcome.steps[-1].title == "geometry/weights"
    assert "geometry/weights" not in outcome.blocked
    assert sorted(p for p in store.root.rglob("*")) == before
