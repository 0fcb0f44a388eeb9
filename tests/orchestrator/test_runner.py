"""The walk over a plan: order, failures and what they block, taking up, surveying; and steps performed for real."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from methods.determinism import Unordered
from methods.durable import Lost
from orchestrator import perform as performing
from orchestrator.context import Context
from orchestrator.perform import Engines, explain
from orchestrator.plan import Step
from orchestrator.runner import NOT_RUN, Outcome, Serial, Walk, attempt
from orchestrator.store import Store, name_of, open_store
from orchestrator.study import Study


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
        outcome = Walk(plan, store, [].append if said is None else said.append).run(lambda: executor)
        return outcome, executor

    return run


def test_all_steps_run_once_and_inputs_first(plan: list[Step], walk: Any, store: Store) -> None:
    outcome, executor = walk(plan)
    assert sorted(executor.titles) == sorted(s.title for s in plan)
    assert outcome.made == {s.title for s in plan}
    assert (outcome.cached, outcome.failed, outcome.blocked) == (set(), {}, {})
    assert all(store.done(s) for s in plan)
    assert executor.closed


def test_a_second_walk_runs_nothing_and_opens_no_executor(plan: list[Step], walk: Any, store: Store) -> None:
    walk(plan)

    def refuse() -> Any:
        raise AssertionError("nothing to do, so no executor is needed")

    outcome = Walk(plan, store, lambda line: None).run(refuse)
    assert outcome.cached == {s.title for s in plan}
    assert outcome.made == set()
    assert outcome.steps == plan


def test_a_failed_training_blocks_its_own_readers_and_nothing_else(plan: list[Step], walk: Any) -> None:
    said: list[str] = []
    outcome, executor = walk(plan, said, fails=["train/dpo"])
    assert outcome.failed == {"train/dpo": "planted"}
    assert outcome.blocked == {"evaluate/dpo": "needs train/dpo"}
    assert outcome.made == {s.title for s in plan} - {"train/dpo", "evaluate/dpo"}
    assert "train/dpo: FAILED: planted" in said
    assert "evaluate/dpo: not run, needs train/dpo" in said
    collective = [s for s in executor.started if s.collective]
    assert {s.kind for s in collective} == {"geometry", "activations", "spectra", "connectivity", "similarity"}
    for step in collective:
        trained = {r for r in step.inputs if r.startswith("adapter:")}
        assert trained == {f"adapter:{n}" for n in ("sft", "rft", "dpo-lr3e-4", "sft-order43", "sft-init43")}


def test_the_narrowed_step_is_another_than_the_whole_one(plan: list[Step], walk: Any, store: Store) -> None:
    narrowed, _ = walk(plan, fails=["train/dpo"])
    geometry = next(s for s in plan if s.kind == "geometry")
    assert not store.done(geometry)
    again, executor = walk(plan)
    collective = ["geometry/weights", "activations/rows", "spectra/base", "connectivity/paths", "similarity/cka"]
    assert sorted(executor.titles) == sorted(["train/dpo", "evaluate/dpo", *collective])
    assert store.done(geometry)
    assert not again.failed and {s.key for s in again.steps} == {s.key for s in plan}
    assert geometry.key not in {s.key for s in narrowed.steps}


def test_a_failed_reference_blocks_only_dpo(plan: list[Step], walk: Any) -> None:
    outcome, _ = walk(plan, fails=["reference/base"])
    assert set(outcome.blocked) == {"train/dpo", "train/dpo-lr3e-4", "evaluate/dpo", "evaluate/dpo-lr3e-4"}
    assert {"train/sft", "evaluate/sft", "geometry/weights"} <= outcome.made


def test_a_collective_step_is_blocked_by_what_it_cannot_spare(plan: list[Step], walk: Any) -> None:
    outcome, _ = walk(plan, fails=["problems/evaluation"])
    assert outcome.blocked["similarity/cka"] == "needs problems/evaluation"
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
    outcome = Walk(plan, store, lambda line: None).survey()
    assert outcome.blocked["base/scratch"] == NOT_RUN
    assert outcome.blocked["rollouts/sampled"] == "needs base/scratch"
    assert outcome.lost == {s.title for s in plan} and not outcome.failed
    assert list(store.root.iterdir()) == []
    walk(plan, fails=["train/dpo"])
    outcome = Walk(plan, store, lambda line: None).survey()
    assert outcome.failed == {"train/dpo": "planted"}
    assert outcome.blocked == {"evaluate/dpo": "needs train/dpo"}
    assert outcome.cached == {s.title for s in plan} - {"train/dpo", "evaluate/dpo"}


def test_a_record_that_does_not_hash_to_its_key_is_said_and_the_step_made_again(
    plan: list[Step], walk: Any, store: Store
) -> None:
    walk(plan)
    sft = next(s for s in plan if s.title == "train/sft")
    path = store.folder(sft) / "step.json"
    path.write_text(path.read_text().replace('"train"', '"trein"', 1))
    said: list[str] = []
    assert Walk(plan, store, said.append).survey().blocked[sft.title] == "not run yet", "a report goes on"
    assert said[0] == "train/sft: step.json was changed since it was made"
    outcome, _ = walk(plan)
    assert outcome.made == {"train/sft"}


def test_a_survey_removes_nothing(plan: list[Step], walk: Any, store: Store) -> None:
    """The report is read from the store: looking at a damaged result must not be what deletes it."""
    walk(plan)
    sft = next(s for s in plan if s.title == "train/sft")
    (store.folder(sft) / "result.txt").write_text("changed")
    Walk(plan, store, lambda line: None).survey()
    assert (store.folder(sft) / "result.txt").read_text() == "changed"


def test_the_executor_is_closed_when_it_breaks(plan: list[Step], store: Store, stand_in: Any) -> None:
    class Broken(stand_in):
        def wait(self) -> list[tuple[Step, str | None]]:
            raise KeyboardInterrupt

    executor = Broken(store)
    with pytest.raises(KeyboardInterrupt):
        Walk(plan, store, lambda line: None).run(lambda: executor)
    assert executor.closed


TWO = [base := Step("base", "b", {"x": 1}), Step("rollouts", "r", {"threads": 1}, {"base": base})]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[Context], None]]:
    """Step functions of this test's own, by kind."""
    functions: dict[str, Callable[[Context], None]] = {}
    monkeypatch.setattr(performing, "function_of", functions.__getitem__)
    monkeypatch.setattr(performing, "pin", lambda threads: None)
    return functions


def test_serial_performs_steps_in_this_process(scripted: dict[str, Any], store: Store) -> None:
    def base(context: Context) -> None:
        context.say("step 1/2")
        assert store.progress(TWO[0]) == "step 1/2"
        (context.out / "model").write_text(str(context.config["x"]))

    def rollouts(context: Context) -> None:
        assert context.slots == 1 and context.share(lambda item, _: str(item), [1, 2]) == ["1", "2"]
        (context.out / "table").write_text((context.inputs["base"] / "model").read_text() + "!")

    scripted.update(base=base, rollouts=rollouts)
    outcome = Walk(TWO, store, lambda line: None).run(lambda: Serial(store))
    assert outcome.made == {"base/b", "rollouts/r"}
    assert (store.folder(TWO[1]) / "table").read_text() == "1!"
    times = store.times(TWO[0])
    assert times["ended"] - times["started"] == pytest.approx(times["seconds"])
    assert store.progress(TWO[0]) == ""


def test_a_clock_that_is_set_back_changes_no_duration(
    scripted: dict[str, Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    scripted["base"] = lambda context: monkeypatch.setattr("orchestrator.clock.time.time", lambda: now - 3600)
    assert attempt(TWO[0], store, Engines()) is None
    times = store.times(TWO[0])
    assert 0 <= times["seconds"] < 60 and abs(times["started"] - now) < 60
    assert times["ended"] == pytest.approx(times["started"] + times["seconds"])


def test_a_step_that_raises_is_a_recorded_failure(scripted: dict[str, Any], store: Store) -> None:
    def base(context: Context) -> None:
        (context.work / "state").write_text("kept")
        raise RuntimeError("the loss is not finite\nat step 3")

    scripted["base"] = base
    assert attempt(TWO[0], store, Engines()) == "RuntimeError: at step 3"
    assert store.failure(TWO[0]) == "RuntimeError: at step 3"
    assert not store.done(TWO[0])
    assert (store.root / "partial" / name_of(TWO[0]) / "work" / "state").read_text() == "kept"
    scripted["base"] = lambda context: None
    assert attempt(TWO[0], store, Engines()) is None
    assert store.failure(TWO[0]) is None and store.done(TWO[0])


@pytest.mark.parametrize("kind", [Lost, Unordered])
def test_what_changes_bytes_is_told_when_the_step_is_done(
    scripted: dict[str, Any], store: Store, kind: type[Warning]
) -> None:
    def base(context: Context) -> None:
        warnings.warn("state.json cannot be read: the training starts over", kind, stacklevel=1)
        warnings.warn("of another kind", stacklevel=1)

    scripted.update(base=base, rollouts=lambda context: None)
    told: list[str] = []
    with pytest.warns(UserWarning, match="of another kind"):
        Walk(TWO, store, told.append).run(lambda: Serial(store))
    assert told[0] == "base/b: state.json cannot be read: the training starts over"
    assert [line.partition(" in ")[0] for line in told[1:]] == ["base/b: done", "rollouts/r: done"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("rft: no rollout has reward 1"), "rft: no rollout has reward 1"),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (KeyError(), "KeyError"),
        (ValueError(""), "ValueError"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_errors_are_told_in_one_line(error: Exception, line: str) -> None:
    assert explain(error) == line


def test_an_engine_stays_open_until_another_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def open_engine(**settings: Any) -> Any:
        engine = SimpleNamespace(settings=settings, closed=0)
        engine.close = lambda: setattr(engine, "closed", engine.closed + 1)
        opened.append(engine)
        return engine

    monkeypatch.setattr("evals.engines.open_engine", open_engine)
    engines = Engines()
    one = engines({"kind": "a"}, Path("m"))
    assert engines({"kind": "a"}, Path("m")) is one
    two = engines({"kind": "a"}, Path("other"))
    assert (one.closed, two.closed, len(opened)) == (1, 0, 2)
    engines.close()
    engines.close()
    assert two.closed == 1
    assert json.dumps(two.settings, default=str) == '{"model": "other", "kind": "a"}'


def test_what_a_dead_run_told_is_not_told_of_the_next(plan: list[Step], store: Store, stand_in: Any) -> None:
    """Neither before a step of the new run has told anything, nor after the run was stopped."""
    store.teller(plan[0])("step 28/30")
    seen: list[str] = []

    class Stopped(stand_in):  # type: ignore[misc]
        def wait(self) -> list[tuple[Step, str | None]]:
            seen.append(self.store.progress(plan[0]))
            self.store.teller(plan[0])("step 1/30")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Walk(plan, store, [].append).run(lambda: Stopped(store))
    assert seen == [""] and store.progress(plan[0]) == ""
