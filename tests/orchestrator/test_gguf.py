"""A GGUF file that is none is refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.bases.gguf import convert


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"no GGUF file at all, only words" * 20], ids=["empty", "cut", "text"]
)
def test_what_is_no_gguf_file_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.gguf"):
        convert(file, tmp_path / "out", lambda line: None)
    assert not (tmp_path / "out").exists()
