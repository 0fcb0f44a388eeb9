"""Steps executed by a project that is not this one: two kinds of the tests' own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execution.context import Context, NoResources
from execution.durable import Lost
from execution.errors import ReproducibilityWarning
from execution.execute import attempt, one_line
from execution.runner import DagRunner, SerialExecutor
from execution.step import Step, StepKind
from execution.store import Store, open_store

FUNCTIONS: dict[str, Callable[[Context], None]] = {}  # of the kinds below, by name, as a test scripts them


def kind(name: str) -> StepKind:
    return StepKind(name, version=1, plan=lambda planned: [], run=lambda context: FUNCTIONS[name](context))


PLAIN, SUM = kind("plain"), kind("sum")
TWO = [plain := Step(PLAIN, "b", {"x": 1}), Step(SUM, "r", {"threads": 1}, {"plain": plain})]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def scripted() -> Iterator[dict[str, Callable[[Context], None]]]:
    """The functions of the two kinds."""
    FUNCTIONS.clear()
    yield FUNCTIONS
    FUNCTIONS.clear()


def test_the_serial_executor_runs_steps_in_this_process(scripted: dict[str, Any], store: Store) -> None:
    def plain(context: Context) -> None:
        context.progress("step 1/2")
        assert store.progress(TWO[0]) == "step 1/2"
        (context.out / "model").write_text(str(context.config["x"]))

    def total(context: Context) -> None:
        assert context.slots == 1 and context.parallel_map(lambda item, _: str(item), [1, 2]) == ["1", "2"]
        (context.out / "table").write_text((context.inputs["plain"] / "model").read_text() + "!")

    scripted.update(plain=plain, sum=total)
    outcome = DagRunner(TWO, store, lambda line: None).run(lambda: SerialExecutor(store))
    assert outcome.made == {"plain/b", "sum/r"}
    assert (store.folder(TWO[1]) / "table").read_text() == "1!"
    times = store.times(TWO[0])
    assert times["ended"] - times["started"] == pytest.approx(times["seconds"])
    assert store.progress(TWO[0]) == ""


def test_a_clock_that_is_set_back_changes_no_duration(
    scripted: dict[str, Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    scripted["plain"] = lambda context: monkeypatch.setattr("execution.clock.time.time", lambda: now - 3600)
    assert attempt(TWO[0], store, NoResources()) is None
    times = store.times(TWO[0])
    assert 0 <= times["seconds"] < 60 and abs(times["started"] - now) < 60
    assert times["ended"] == pytest.approx(times["started"] + times["seconds"])


def test_a_step_that_raises_is_a_recorded_failure(scripted: dict[str, Any], store: Store) -> None:
    def plain(context: Context) -> None:
        (context.work / "state").write_text("kept")
        raise RuntimeError("the loss is not finite\nat step 3")

    scripted["plain"] = plain
    assert attempt(TWO[0], store, NoResources()) == "RuntimeError: at step 3"
    assert store.failure(TWO[0]) == "RuntimeError: at step 3"
    assert not store.done(TWO[0])
    assert (store.root / "partial" / TWO[0].folder / "work" / "state").read_text() == "kept"
    scripted["plain"] = lambda context: None
    assert attempt(TWO[0], store, NoResources()) is None
    assert store.failure(TWO[0]) is None and store.done(TWO[0])


@pytest.mark.parametrize("category", [Lost, ReproducibilityWarning])
def test_what_changes_bytes_is_told_when_the_step_is_done(
    scripted: dict[str, Any], store: Store, category: type[Warning]
) -> None:
    def plain(context: Context) -> None:
        warnings.warn("state.json cannot be read: the training starts over", category, stacklevel=1)
        warnings.warn("of another kind", stacklevel=1)

    scripted.update(plain=plain, sum=lambda context: None)
    told: list[str] = []
    with pytest.warns(UserWarning, match="of another kind"):
        DagRunner(TWO, store, told.append).run(lambda: SerialExecutor(store))
    assert told[0] == "plain/b: state.json cannot be read: the training starts over"
    assert [line.partition(" in ")[0] for line in told[1:]] == ["plain/b: done", "sum/r: done"]


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
    assert one_line(error) == line
