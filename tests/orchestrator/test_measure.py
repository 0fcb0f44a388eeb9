"""What ``doctor --measure`` measures, in this process and for a moment."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import cli
from orchestrator.bases.base import Shape
from orchestrator.config.study import Study
from orchestrator.planning.cost import parameters
from orchestrator.timing import calibration, measure
from orchestrator.timing.calibration import Rates


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_study: Callable[..., Study]) -> dict:
    monkeypatch.setattr(measure, "SECONDS", 0.2)
    monkeypatch.setattr(measure, "PROMPTS", 4)
    return json.loads(json.dumps(measure.asked(make_study(), tmp_path), default=str))


def test_a_rate_is_the_operations_of_a_call_over_its_seconds(asked: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on a second at each look: a step and a pass take one."""
    shape = Shape(**asked["shape"])
    clock = itertools.count()
    monkeypatch.setattr(measure, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    found = measure._training(asked, shape, "cpu")
    tokens = 64 // 2 + 48 // 2
    assert found["training"] == 2 * tokens * 4 * parameters(shape)
    assert found["measuring"] == 8 * tokens * 2 * parameters(shape)


def test_an_engines_and_a_bases_own_work_are_timed(asked: dict) -> None:
    shape = Shape(**asked["shape"])
    served, plain = measure._serving(asked, shape, "cpu"), measure._plain(asked, shape, "cpu")
    for rate in (served["serving"], plain["pretraining"]):
        assert 1e5 < rate < 1e13, "operations a second of one core"
    assert 1e8 < plain["matrix"] < 1e14 and 1e8 < plain["memory"] < 1e13


def test_doctor_keeps_what_was_measured_and_says_it(
    study_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CALIBRATION", str(tmp_path / "rates.json"))
    found = Rates(training=2e10, serving=3e9, measuring=4e10, startup=4.0, matrix=6e10, memory=7e9)
    monkeypatch.setattr(measure, "measure", lambda study, told: found)
    assert cli.main(["doctor", str(study_file), "--measure"]) == 0
    shown = capsys.readouterr().out
    assert "training    0.02 TFLOP/s on one core" in shown and f"kept in {tmp_path / 'rates.json'}" in shown
    assert cli.main(["plan", str(study_file), "--out", str(tmp_path / "out")]) == 0
    assert "calibrated" in capsys.readouterr().out

    def fail(study: Study, told: object) -> Rates:
        raise RuntimeError("training: ValueError: planted")

    monkeypatch.setattr(measure, "measure", fail)
    assert cli.main(["doctor", str(study_file), "--measure"]) == 1
    assert "could not be measured: training: ValueError: planted" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused_in_a_line(
    study_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["doctor", str(study_file)]) == 2
    assert "with --measure" in capsys.readouterr().err
    hub = ["--set", "base={kind: hub, name: a/b}"]
    assert cli.main(["doctor", str(study_file), "--measure", *hub]) == 2
    assert "base.shape" in capsys.readouterr().err
    (tmp_path / "plain").write_text("")
    monkeypatch.setenv("ORCHESTRATOR_CALIBRATION", str(tmp_path / "plain" / "rates.json"))
    monkeypatch.setattr(measure, "measure", lambda study, told: Rates())
    assert cli.main(["doctor", str(study_file), "--measure"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert calibration.place() == tmp_path / "plain" / "rates.json"
