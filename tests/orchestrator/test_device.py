"""What this machine's processor says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.commands import doctor
from orchestrator.config.study import Study
from orchestrator.planning.preflight import advice
from orchestrator.runtime import device


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx512f amx_bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2 fma\nbugs\t\t: bf16\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("Features\t: fp asimd\n", False),
        ("processor\t: 0\n", None),
        (None, None),
    ],
)
def test_bfloat16_is_read_from_the_processors_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, expected: bool | None
) -> None:
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(device, "CPU", tmp_path / "cpuinfo")
    assert device.bfloat16_products() is expected
    found = next(one for one in doctor.examine() if one.what == "bfloat16")
    assert found.ok is (expected is not False) and not found.needed


@pytest.mark.parametrize(
    ("flags", "gpu", "advised"), [("avx2", False, True), ("amx_bf16", False, False), ("avx2", True, False)]
)
def test_bfloat16_where_it_is_slow_is_advised_against(
    make_study: Callable[..., Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    gpu: bool,
    advised: bool,
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags}\n")
    if gpu:
        (tmp_path / "cards" / "0000:01").mkdir(parents=True)
    monkeypatch.setattr(device, "CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(device, "CARDS", tmp_path / "cards")
    study = make_study("training.precision=bfloat16", "engine.precision=float32")
    (line,) = advice(study) or [""]
    assert ("--set training.precision=float32" in line and "engine" not in line) is advised
    assert not advice(make_study("training.precision=float32", "engine.precision=float32"))
