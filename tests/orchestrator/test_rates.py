"""By whose rate a step is estimated: measured in the folder, calibrated on this machine, or assumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from execution.step import Step
from execution.store import Store, open_store
from orchestrator import cli
from orchestrator.config.study import Study
from orchestrator.planning.cost import durations
from orchestrator.timing import calibration, estimated, rates
from orchestrator.timing.calibration import Rates
from orchestrator.timing.rates import ASSUMED, Estimate, estimates, kinds, on_cores

WEIGHTS = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384)
ROW = (64 + 48) / 2  # tokens
SFT = 4 * 2 * ROW * 4 * WEIGHTS  # operations: steps, batch, and forward and backward through frozen weights

Maker, Planner = Callable[..., Study], Callable[[Study], list[Step]]


@pytest.fixture
def planned(make_study: Maker, plan_of: Planner, tmp_path: Path) -> tuple[Study, list[Step], Store]:
    study = make_study()
    return study, plan_of(study), open_store(tmp_path / "run")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache" / "rates.json"
    monkeypatch.setenv("ORCHESTRATOR_CALIBRATION", str(path))
    return path


def finish(store: Store, step: Step, **times: Any) -> None:
    with store.writing(step):
        pass
    store.record_times(step, {"seconds": 1.0, "startup_seconds": 0.0, "gpus": "", **times})


def test_what_nobody_measured_is_assumed_for_a_gpu_and_for_a_core(planned: tuple[Study, list[Step], Store]) -> None:
    study, steps, store = planned
    on_gpu, on_core = (estimates(study, steps, store, device, None) for device in ("gpu", "cpu"))
    assert on_gpu is not None and on_core is not None
    assert {title: e.seconds for title, e in on_gpu.items()} == durations(study, steps)
    assert {e.source for e in (*on_gpu.values(), *on_core.values())} == {"assumed"}
    assert on_core["train/sft"].seconds == pytest.approx(SFT / 5e10)
    assert on_core["geometry/weights"] == on_gpu["geometry/weights"], "algebra is done on cores"


def test_a_calibrated_rate_divides_the_same_work(planned: tuple[Study, list[Step], Store]) -> None:
    study, steps, store = planned
    given = Rates(training=1e9, serving=2e9, measuring=4e9, pretraining=5e9, startup=3.0)
    found = estimates(study, steps, store, "cpu", given)
    assert found is not None
    assert found["train/sft"] == Estimate(pytest.approx(SFT / 1e9), "calibrated")
    assert found["train/dpo"].seconds == pytest.approx(2 * SFT / 1e9)
    assert found["base/scratch"].seconds == pytest.approx(3 * 64 * 40 * 6 * WEIGHTS / 5e9 + 3)
    answered = 6 * 1024 * 0.5 * 2 * WEIGHTS  # six problems
    assert found["evaluate/sft"].seconds == pytest.approx(answered / 2e9)
    on_gpu = estimates(study, steps, store, "gpu", replace(given, pretraining=0.0))
    assert on_gpu is not None
    assert on_gpu["train/sft"].seconds == pytest.approx(SFT / 1e9), "an operation is one on any device"
    assert on_gpu["base/scratch"].source == "assumed" and on_gpu["problems/evaluation"].seconds == 0, "nor a start-up"


def test_finished_steps_teach_the_rest_of_their_kind(planned: tuple[Study, list[Step], Store]) -> None:
    study, steps, store = planned
    by_title = {step.title: step for step in steps}
    assumed = estimates(study, steps, store, "gpu", None)
    assert assumed is not None
    sft, dpo = assumed["train/sft"].seconds, assumed["train/dpo"].seconds
    finish(store, by_title["train/sft"], gpus="0", seconds=7 * sft + 10, startup_seconds=10.0)
    finish(store, by_title["train/dpo"], gpus="1", seconds=4 * dpo)
    found = estimates(study, steps, store, "gpu", Rates(training=1.0))
    assert found is not None
    assert found["train/sft"] == Estimate(pytest.approx(7 * sft), "measured here")
    # 7 and 8 of SFT's time over 1 and 2: five times as long as assumed.
    assert found["train/rft"] == Estimate(pytest.approx(5 * sft), "measured here")
    assert found["train/dpo-lr3e-4"].seconds == pytest.approx(5 * dpo)
    assert found["evaluate/sft"].source == "assumed"
    on_cores = estimates(study, steps, store, "cpu", None)
    assert on_cores is not None and on_cores["train/rft"].source == "assumed", "a GPU's time tells nothing of a core's"


def test_times_that_are_no_rate_are_left_out(planned: tuple[Study, list[Step], Store]) -> None:
    """Items over some number of GPUs, a step that is not done, times that cannot be read."""
    _, steps, store = planned
    by_title = {step.title: step for step in steps}
    finish(store, by_title["connectivity/paths"], gpus="0", seconds=50.0)
    finish(store, by_title["train/sft"], gpus="0", seconds="long")
    store.record_times(by_title["train/rft"], {"seconds": 9.0, "gpus": "0"})
    assert rates.measured(steps, store, "gpu") == {}
    assert rates.measured(steps, store, "cpu") == {}


def test_a_calibration_is_found_again_and_is_its_machines(
    make_study: Maker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, given = make_study(), Rates(training=1e9, startup=2.0)
    assert calibration.load(study) == (None, f"calibration {file} is not there: run doctor --measure")
    assert calibration.save(study, given) == file
    assert calibration.load(study) == (given, None)
    other = make_study("base.shape={layers: 4, hidden: 64, heads: 2, kv_heads: 1, head_dim: 32, intermediate: 384}")
    found, line = calibration.load(other)
    assert found is None and line is not None and "no model of this study's layers" in line
    calibration.save(other, Rates(training=2e9))
    assert calibration.load(study) == (given, None) and calibration.load(other)[0] == Rates(training=2e9)
    assert calibration.load(study, gpu=True) == (None, None), "these are the rates of cores"
    monkeypatch.setattr(calibration, "gpu_names", lambda: ["NVIDIA H100"])
    found, line = calibration.load(study, gpu=True)
    assert found is None and line is not None and "(gpu None, here NVIDIA H100)" in line
    calibration.save(study, given)
    assert calibration.load(study, gpu=True) == (given, None) and calibration.load(study) == (None, None)
    monkeypatch.setattr(calibration, "processor", lambda: "Another Processor")
    found, line = calibration.load(study)
    assert found is None and line is not None and "another machine's and not used (processor " in line
    assert "here Another Processor" in line and "\n" not in line
    monkeypatch.setenv("ORCHESTRATOR_CALIBRATION", "")
    assert calibration.load(study) == (None, None)


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"rates": 3, "machine": {}}', "nan", "words", "negative"])
def test_a_damaged_calibration_is_a_line(make_study: Maker, file: Path, damage: str) -> None:
    study = make_study()
    calibration.save(study, Rates(training=1e9))
    whole = file.read_text()
    for name, value in (("nan", "NaN"), ("words", '"fast"'), ("negative", "-1.0")):
        damage = whole.replace("1000000000.0", value) if damage == name else damage
    file.write_text(damage)
    found, line = calibration.load(study)
    assert found is None and line is not None and "damaged and not used" in line


def test_the_users_cache_holds_it(make_study: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHESTRATOR_CALIBRATION")
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    assert calibration.save(make_study(), Rates()) == tmp_path / "cache" / "calibration.json"
    monkeypatch.delenv("ORCHESTRATOR_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibration.place() == tmp_path / ".cache" / "orchestrator" / "calibration.json"


def test_a_plan_says_whose_rates_these_are(
    study_file: Path, make_study: Maker, plan_of: Planner, file: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    study, out = make_study(), tmp_path / "out"
    calibration.save(study, Rates(training=1e9, serving=1e9, measuring=1e9, pretraining=1e9, startup=1.0))
    store = open_store(out)
    sft = next(step for step in plan_of(study) if step.title == "train/sft")
    finish(store, sft, seconds=2.0)

    def shown(*words: str) -> dict[str, list[str]]:
        assert cli.main(["plan", str(study_file), "--out", str(out), *words]) == 0
        return {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}

    found = shown()
    assert found["train"][1:] == ["6", f"{2 + 3 * 2 + 2 * 4:.3g}", "measured", "here"]  # a pair is two rows
    assert found["evaluate"][3:] == ["calibrated"] and found["about"][-1] == "counted"
    found = shown("--gpus", "2")
    assert found["train"][3:] == ["assumed"], "neither a core's rate nor its time is a GPU's"
    assert "0.000" in found and found["0.000"][2:4] == ["-", "assumed"]
    monkeypatch.setattr(calibration, "processor", lambda: "Another Processor")
    assert "not used" in " ".join(shown()["calibration"])


def test_cores_in_the_place_of_gpus_by_hand(planned: tuple[Study, list[Step], Store]) -> None:
    """The base on both of two cores, then a chain, six trainings of 10 on two, and one step that reads them."""
    _, steps, _ = planned
    base = next(step for step in steps if step.kind.name == "base")
    threaded = replace(base, config={**base.config, "threads": 2})
    kept = [threaded, *(step for step in steps if step.kind.name in ("rollouts", "reference", "train", "geometry"))]
    seconds = {"base": 100.0, "rollouts": 20.0, "reference": 4.0, "train": 10.0, "geometry": 5.0}
    found = {step.title: Estimate(seconds[step.kind.name], "assumed") for step in kept}
    trained = sum(step.kind.name == "train" for step in kept)
    assert trained == 6
    # Three trainings behind the reference on one core, three on the other.
    made = on_cores(kept, found, 2)
    assert made.makespan == pytest.approx(100 + 20 + (4 + 3 * 10) + 5)
    assert list(kinds(kept, found))[-1] == ("geometry", 1, 5.0, "assumed")


def test_estimates_are_kept_as_they_were_before_a_step_ran(planned: tuple[Study, list[Step], Store]) -> None:
    study, steps, store = planned
    by_title = {step.title: step for step in steps}
    before = estimates(study, steps, store, "gpu", None)
    estimated.keep(study, steps, store, before, 3)
    sft, paths = by_title["train/sft"], by_title["connectivity/paths"]
    assert before is not None
    assert estimated.read(store)[sft.folder] == {"estimated_seconds": before[sft.title].seconds, "rate": "assumed"}
    assert estimated.read(store)[paths.folder]["estimated_seconds"] == pytest.approx(before[paths.title].seconds / 3)
    finish(store, sft, gpus="0", seconds=99.0)
    estimated.keep(study, steps, store, estimates(study, steps, store, "gpu", None), 3)
    kept = estimated.read(store)
    assert kept[sft.folder]["rate"] == "assumed", "the truth is not an estimate of itself"
    assert kept[by_title["train/rft"].folder] == {"estimated_seconds": pytest.approx(99.0), "rate": "measured here"}
    (store.root / "estimates.json").write_text(json.dumps({sft.folder: {"seconds": "x"}, "a": 3}))
    assert estimated.read(store) == {}


def test_every_kind_of_work_has_its_rate(planned: tuple[Study, list[Step], Store]) -> None:
    _, steps, _ = planned
    of = {step.kind.name: rates.work_of(step) for step in steps}
    assert set(of.values()) == set(ASSUMED)
    assert of["rollouts"] == of["evaluate"] == "serving" and of["reference"] == of["train"] == "training"
    assert of["losses"] == of["connectivity"] == "measuring" and of["similarity"] == "algebra"
