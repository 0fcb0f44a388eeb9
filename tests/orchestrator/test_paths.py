"""Paths between models: their ends are read from the models' own losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from execution.context import Context, NoResources
from execution.execute import serial_map
from execution.store import write_json
from orchestrator.measurements import connectivity
from orchestrator.measurements.losses import HeldOut
from orchestrator.steps.connectivity import FILE
from orchestrator.steps.losses import FILE as LOSSES_FILE

ENDS = {"base": 3.0, "sft": 1.0, "rft": None, "dpo": 2.0}  # RFT's is not finite


def measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pairs: list[list[str]], right: int = 2, slots: int = 1,
    without: tuple[str, ...] = (),
) -> tuple[dict, list[connectivity.Point]]:  # fmt: skip
    """What is written of these pairs, where each point between has a loss of 5, and the points that were measured."""
    inputs = {role: tmp_path / role.replace(":", "-") for role in ("base", "rollouts")}
    for name, loss in ENDS.items():
        inputs |= {f"{kind}:{name}": tmp_path / f"{kind}-{name}" for kind in ("adapter", "losses") if name != "base"}
        inputs[f"losses:{name}"] = tmp_path / f"losses-{name}"
        inputs[f"losses:{name}"].mkdir(parents=True, exist_ok=True)
        write_json(inputs[f"losses:{name}"] / LOSSES_FILE, {"name": name, "nll_right": loss})
    inputs = {role: folder for role, folder in inputs.items() if role not in without}
    passed: list[connectivity.Point] = []

    def measure(task: connectivity.Task, _: object) -> list[tuple[connectivity.Point, float]]:
        passed.extend(task.points)
        return [(point, 5.0) for point in task.points]

    monkeypatch.setattr(connectivity, "measure", measure)
    monkeypatch.setattr(connectivity, "heldout_rows", lambda folder, most: HeldOut([([1], [2])] * right, []))
    config = {"pairs": pairs, "points": 4, "rows": 9, "threads": 1, "attention": "sdpa"}
    mapped, quiet = serial_map(inputs), lambda line: None
    connectivity.measure_paths(
        Context(config, {}, inputs, tmp_path, tmp_path, lambda: None, quiet, mapped, NoResources(), slots)
    )
    return json.loads((tmp_path / FILE).read_text()), passed


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_ends_are_not_passed_through_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slots: int) -> None:
    found, passed = measured(monkeypatch, tmp_path, [["sft", "dpo"], ["base", "sft"]], slots=slots)
    between = [("sft", "dpo", 1 / 3), ("sft", "dpo", 2 / 3), ("base", "sft", 1 / 3), ("base", "sft", 2 / 3)]
    assert sorted(passed) == sorted(between)
    one, two = found["paths"]
    assert (one["a"], one["b"], one["loss"]) == ("sft", "dpo", [2.0, 5.0, 5.0, 1.0])
    assert one["barrier"] == pytest.approx(5 - (1.0 * 2 / 3 + 2.0 / 3))
    assert (two["a"], two["b"], two["loss"]) == ("base", "sft", [1.0, 5.0, 5.0, 3.0])


@pytest.mark.parametrize("lost", ["adapter:dpo", "losses:dpo"])
def test_a_path_is_left_out_where_an_end_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: str
) -> None:
    found, passed = measured(monkeypatch, tmp_path, [["sft", "dpo"], ["sft", "base"]], without=(lost,))
    assert [(path["a"], path["b"]) for path in found["paths"]] == [("sft", "base")]
    assert {point[:2] for point in passed} == {("sft", "base")}


def test_an_end_that_is_not_finite_has_no_barrier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, _ = measured(monkeypatch, tmp_path, [["sft", "rft"]])
    assert found["paths"][0]["loss"] == [None, 5.0, 5.0, 1.0] and found["paths"][0]["barrier"] is None


@pytest.mark.parametrize(("pairs", "right"), [([], 2), ([["sft", "dpo"]], 0)])
def test_without_pairs_or_right_rows_there_is_no_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pairs: list[list[str]], right: int
) -> None:
    found, passed = measured(monkeypatch, tmp_path, pairs, right=right)
    assert (found["rows"], found["paths"], passed) == (right, [], [])
