"""A plan's run: order, failures and what they block, taking up, surveying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from execution.runner import NOT_RUN, DagRunner, Outcome
from execution.step import Step
from execution.store import Store, open_store
from orchestrator.config.study import Study


@pytest.fixture
def plan(make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]]) -> list[Step]:
    return plan_of(make_study())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def walk(store: Store, stand_in: Any) -> Callable[..., tuple[Outcome, Any]]:
    """A function that walks a plan with a stand-in executor and returns the outcome and the executor."""

    def run(plan: Sequence[Step], said: list[str] | None = None, **how: Any) -> tuple[Outcome, Any]:
        executor = stand_in(store, **how)
        outcome = DagRunner(plan, store, [].append if said is None else said.append).run(lambda: executor)
        return outcome, executor

    return run


def test_all_steps_run_once_and_inputs_first(plan: list[Step], walk: Any, store: Store) -> None:
    outcome, executor = walk(plan)
    assert sorted(executor.titles) == sorted(s.title for s in plan)
    assert outcome.made == {s.title for s in plan}
    assert (outcome.cached, outcome.failed, outcome.blocked) == (set(), {}, {})
    assert all(store.done(s) for s in plan)
    assert executor.closed


def test_each_step_is_looked_at_once_however_many_wait(
    plan: list[Step], walk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    resolve = DagRunner._resolve

    def counted(run: DagRunner, step: Step) -> Step:
        looked.append(step.title)
        return resolve(run, step)

    monkeypatch.setattr(DagRunner, "_resolve", counted)
    walk(plan, fails=["train/dpo"])
    assert sorted(looked) == sorted(step.title for step in plan)


def test_a_second_walk_runs_nothing_and_opens_no_executor(plan: list[Step], walk: Any, store: Store) -> None:
    walk(plan)

    def refuse() -> Any:
        raise AssertionError("nothing to do, so no executor is needed")

    outcome = DagRunner(plan, store, lambda line: None).run(refuse)
    assert outcome.cached == {s.title for s in plan}
    assert outcome.made == set()
    assert outcome.steps == plan


def test_a_failed_training_blocks_its_own_readers_and_nothing_else(plan: list[Step], walk: Any) -> None:
    said: list[str] = []
    outcome, executor = walk(plan, said, fails=["train/dpo"])
    assert outcome.failed == {"train/dpo": "planted"}
    own = {f"{kind}/dpo" for kind in ("evaluate", "losses", "features")}
    assert outcome.blocked == dict.fromkeys(own, "needs train/dpo")
    assert outcome.made == {s.title for s in plan} - {"train/dpo"} - own
    assert "train/dpo: FAILED: planted" in said
    assert "evaluate/dpo: not run, needs train/dpo" in said
    collective = {s.kind.name: s.spare_roles for s in executor.started if s.collective}
    assert collective.keys() == {"geometry", "activations", "spectra", "connectivity", "similarity"}
    left = ("sft", "rft", "dpo-lr3e-4", "sft-order43", "sft-init43")
    assert collective.pop("connectivity") == ["adapter:sft", "losses:sft"]
    assert collective.pop("similarity") == [f"features:{n}" for n in left]
    assert all(spare == [f"adapter:{n}" for n in left] for spare in collective.values())


@pytest.mark.parametrize("kind", ["features", "losses"])
def test_what_was_not_measured_of_one_model_is_left_out_of_the_comparison(
    plan: list[Step], walk: Any, kind: str
) -> None:
    """A path without the losses of one of its ends too, though its adapter is there."""
    outcome, executor = walk(plan, fails=[f"{kind}/dpo"])
    assert outcome.failed.keys() == {f"{kind}/dpo"} and not outcome.blocked
    steps = {s.title: s for s in executor.started}
    reader = steps["similarity/cka" if kind == "features" else "connectivity/paths"]
    assert {f"{kind}:sft", f"{kind}:dpo"} & reader.inputs.keys() == {f"{kind}:sft"}


def test_without_the_bases_features_nothing_is_compared(plan: list[Step], walk: Any) -> None:
    outcome, _ = walk(plan, fails=["features/base"])
    assert outcome.blocked == {"similarity/cka": "needs features/base"}


def test_the_narrowed_step_is_another_than_the_whole_one(plan: list[Step], walk: Any, store: Store) -> None:
    narrowed, _ = walk(plan, fails=["train/dpo"])
    geometry = next(s for s in plan if s.kind.name == "geometry")
    assert not store.done(geometry)
    again, executor = walk(plan)
    collective = ["geometry/weights", "activations/rows", "spectra/base", "connectivity/paths", "similarity/cka"]
    own = [f"{kind}/dpo" for kind in ("train", "evaluate", "losses", "features")]
    assert sorted(executor.titles) == sorted([*own, *collective])
    assert store.done(geometry)
    assert not again.failed and {s.key for s in again.steps} == {s.key for s in plan}
    assert geometry.key not in {s.key for s in narrowed.steps}


def test_a_failed_reference_blocks_only_dpo(plan: list[Step], walk: Any) -> None:
    outcome, _ = walk(plan, fails=["reference/base"])
    kinds = ("train", "evaluate", "losses", "features")
    assert set(outcome.blocked) == {f"{kind}/{name}" for kind in kinds for name in ("dpo", "dpo-lr3e-4")}
    assert {"train/sft", "evaluate/sft", "geometry/weights"} <= outcome.made


def test_a_collective_step_is_blocked_by_what_it_cannot_spare(plan: list[Step], walk: Any) -> None:
    outcome, _ = walk(plan, fails=["problems/evaluation"])
    assert outcome.blocked["features/sft"] == "needs problems/evaluation"
    assert outcome.blocked["similarity/cka"] == "needs features/base"
    assert outcome.blocked["evaluate/base"] == "needs problems/evaluation"
    assert {"geometry/weights", "connectivity/paths", "train/sft"} <= outcome.made


def test_a_failed_base_blocks_everything(plan: list[Step], walk: Any) -> None:
    outcome, executor = walk(plan, fails=["base/scratch"])
    assert executor.titles == ["base/scratch"]
    assert outcome.failed.keys() | outcome.blocked.keys() == {s.title for s in plan}
    assert outcome.made == set()


def test_a_failed_step_is_tried_again_by_the_next_walk(plan: list[Step], walk: Any, store: Store) -> None:
    failed, _ = walk(plan, fails=["train/rft"])
    rft = next(s for s in plan if s.title == "train/rft")
    assert store.failure(rft) == "planted"
    outcome, executor = walk(plan)
    assert "train/rft" in executor.titles and "train/sft" not in executor.titles
    assert store.failure(rft) is None
    assert "train/rft" in failed.failed and not outcome.failed


def test_a_damaged_result_is_made_again(plan: list[Step], walk: Any, store: Store) -> None:
    walk(plan)
    sft = next(s for s in plan if s.title == "train/sft")
    (store.folder(sft) / "result.txt").write_text("changed")
    said: list[str] = []
    outcome, executor = walk(plan, said)
    assert executor.titles == ["train/sft"]
    assert outcome.made == {"train/sft"}
    assert any("train/sft: result.txt was changed" in line for line in said)
    assert store.damage(sft) is None


def test_a_survey_runs_nothing_and_tells_failed_from_not_run(plan: list[Step], walk: Any, store: Store) -> None:
    outcome = DagRunner(plan, store, lambda line: None).survey()
    assert outcome.blocked["base/scratch"] == NOT_RUN
    assert outcome.blocked["rollouts/sampled"] == "needs base/scratch"
    assert outcome.lost == {s.title for s in plan} and not outcome.failed
    assert list(store.root.iterdir()) == []
    walk(plan, fails=["train/dpo"])
    outcome = DagRunner(plan, store, lambda line: None).survey()
    assert outcome.failed == {"train/dpo": "planted"}
    own = {f"{kind}/dpo" for kind in ("evaluate", "losses", "features")}
    assert outcome.blocked == dict.fromkeys(own, "needs train/dpo")
    assert outcome.cached == {s.title for s in plan} - {"train/dpo"} - own


def test_a_record_that_does_not_hash_to_its_key_is_said_and_the_step_made_again(
    plan: list[Step], walk: Any, store: Store
) -> None:
    walk(plan)
    sft = next(s for s in plan if s.title == "train/sft")
    path = store.folder(sft) / "step.json"
    path.write_text(path.read_text().replace('"train"', '"trein"', 1))
    said: list[str] = []
    assert DagRunner(plan, store, said.append).survey().blocked[sft.title] == "not run yet", "a report goes on"
    assert said[0] == "train/sft: step.json was changed since it was made"
    outcome, _ = walk(plan)
    assert outcome.made == {"train/sft"}


def test_a_survey_removes_nothing(plan: list[Step], walk: Any, store: Store) -> None:
    """The report is read from the store: looking at a damaged result must not be what deletes it."""
    walk(plan)
    sft = next(s for s in plan if s.title == "train/sft")
    (store.folder(sft) / "result.txt").write_text("changed")
    DagRunner(plan, store, lambda line: None).survey()
    assert (store.folder(sft) / "result.txt").read_text() == "changed"


def test_the_executor_is_closed_when_it_breaks(plan: list[Step], store: Store, stand_in: Any) -> None:
    class Broken(stand_in):
        def wait(self) -> list[tuple[Step, str | None]]:
            raise KeyboardInterrupt

    executor = Broken(store)
    with pytest.raises(KeyboardInterrupt):
        DagRunner(plan, store, lambda line: None).run(lambda: executor)
    assert executor.closed


def test_what_a_dead_run_told_is_not_told_of_the_next(plan: list[Step], store: Store, stand_in: Any) -> None:
    """Neither before a step of the new run has told anything, nor after the run was stopped."""
    store.progress_writer(plan[0])("step 28/30")
    seen: list[str] = []

    class Stopped(stand_in):  # type: ignore[misc]
        def wait(self) -> list[tuple[Step, str | None]]:
            seen.append(self.store.progress(plan[0]))
            self.store.progress_writer(plan[0])("step 1/30")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DagRunner(plan, store, [].append).run(lambda: Stopped(store))
    assert seen == [""] and store.progress(plan[0]) == ""
