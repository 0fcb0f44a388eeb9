"""Estimate beside truth, per kind of step."""

from __future__ import annotations

from report import formats
from report.sections.time import estimate_table


def step(title: str, seconds: float | None, estimated: float | None = None, rate: str = "assumed") -> dict:
    made = {"step": title, "seconds": seconds, "startup_seconds": 1.0, "cached": False}
    return made if estimated is None else made | {"estimated_seconds": estimated, "rate": rate}


def test_a_kinds_steps_are_added_up_and_those_without_an_estimate_left_out() -> None:
    steps = [
        step("cluster", 5.0), step("train/sft", 30.0, 10.0, "calibrated"), step("train/rft", None, 10.0),
        step("train/dpo", 50.0, 30.0, "measured here"), step("evaluate/sft", 7.0),
        step("problems/evaluation", 3.0, 0.0),
    ]  # fmt: skip
    table = estimate_table({"steps": steps})
    assert table is not None
    rows = [[cell.text for cell in row] for row in (line.cells for line in table.lines)]
    assert rows == [
        ["train", "2", "40.0 s", "80.0 s", "2.00", "calibrated and measured here"],
        ["problems", "1", "0.0 s", "3.0 s", formats.MISSING, "assumed"],
    ]


def test_without_estimates_there_is_no_table() -> None:
    assert estimate_table({"steps": [step("train/sft", 3.0)]}) is None and estimate_table({}) is None
