"""Which step gets which engine: by rank, on as many GPUs as it spans, and if possible one that is open already."""

from __future__ import annotations

from typing import Any

from execution.step import Step
from orchestrator.cluster.engine_pool import EnginePool, Idle
from orchestrator.cluster.packing import fitting
from orchestrator.steps import STEP_KINDS


def step(name: str, gpus: int = 1, model: str = "a", **engine: Any) -> Step:
    settings = engine | ({"tensor_parallel": gpus} if gpus > 1 else {})
    inputs = {"model": Step(STEP_KINDS["base"], model, {"name": model})}
    return Step(STEP_KINDS["sample"], name, {"engine": settings}, inputs)


def pool(*waiting: Step, counted: bool = True) -> tuple[EnginePool, list[str], list[str]]:
    """A pool, the actors that it started (by their GPUs), and those that it ended."""
    started: list[str] = []
    ended: list[str] = []

    def start(gpus: float) -> str:
        started.append(f"new on {gpus:g}")
        return started[-1]

    return EnginePool(start, ended.append, counted, list(waiting)), started, ended


def test_the_first_that_fits_is_placed() -> None:
    """On three GPUs: the engine of four waits, those behind it do not."""
    four, two, other, one = step("four", 4), step("two", 2), step("other", 2), step("one")
    engines, started, _ = pool(four, two, other, one)
    placed = fitting(engines.waiting, engines.gpus_of, 3)
    assert placed == [two, one] and not started
    assert [engines.take(step) for step in placed] == [("new on 2", 2), ("new on 1", 1)]
    assert engines.waiting == [four, other] and fitting(engines.waiting, engines.gpus_of, 0) == []
    assert fitting(engines.waiting, engines.gpus_of, 4) == [four] and engines.take(four) == ("new on 4", 4)


def test_an_open_engine_is_preferred_and_others_are_ended() -> None:
    """Of actors of as many GPUs the one with the step's model and settings; one of other GPUs is not taken."""
    done, wanted = step("done", 2, "b"), step("wanted", 2, "b")
    engines, started, ended = pool(wanted)
    engines.idle += [
        Idle("on one", 1, step("x", 1, "b")),
        Idle("unused", 2),
        Idle("another model", 2, step("x", 2, "a")),
        Idle("another setting", 2, step("x", 2, "b", batch_size=8)),
        Idle("the same", 2, done),
    ]
    assert engines.take(wanted) == ("the same", 2)
    engines.waiting.append(last := step("last", 2, "c"))
    assert engines.take(last) == ("unused", 2)
    engines.end_idle()
    assert ended == ["on one", "another model", "another setting"] and not engines.idle and not started


def test_on_cpus_an_engine_holds_nothing() -> None:
    engines, _, _ = pool(step("two", 2), step("one"), counted=False)
    assert engines.too_large(0) == []
    assert engines.next(new=False) is None, "none is open"
    assert engines.next(new=True) == (step("two", 2), "new on 0", 0)
    engines.idle.append(Idle("open", 0))
    assert engines.next(new=False) == (step("one"), "open", 0)
    assert engines.next(new=True) is None, "nothing waits"


def test_only_what_no_node_holds_is_too_large() -> None:
    engines, _, _ = pool(step("one"), step("four", 4), step("eight", 8))
    told = engines.too_large(4)
    assert told == [(step("eight", 8), "its engine spans 8 GPUs of one node, and the cluster's largest has 4 now")]
    assert [s.name for s in engines.waiting] == ["one", "four"]
    assert engines.too_large(0)[0][0].name == "four", "of one GPU there is some, or none is counted"
