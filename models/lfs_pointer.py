"""What Git LFS leaves in the place of a file that was not fetched."""

from __future__ import annotations

from pathlib import Path

START = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """ValueError, one line, where the file is a pointer of Git LFS; nothing where it is none, or not there."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        if stream.read(len(START)) == START:
            raise ValueError(f"{path}: a Git LFS pointer in the place of the file; run git lfs pull in its repository")
