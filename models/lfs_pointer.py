"""Detects Git LFS pointers, which stand in for files that were not fetched."""

from __future__ import annotations

from pathlib import Path

START = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """One-line ValueError if the file is a Git LFS pointer; nothing if it is not, or does not exist."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        if stream.read(len(START)) == START:
            raise ValueError(f"{path}: a Git LFS pointer instead of the file; run git lfs pull in its repository")
