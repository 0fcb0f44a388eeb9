"""What this machine's processor says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import device, doctor


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
