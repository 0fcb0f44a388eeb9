"""Writing so that a reader finds the old file or the new one, whole, whenever the writer or the machine stops."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """``write`` to a file aside, bring it to the disk, rename it to ``path``."""
    aside = path.with_name(path.name + ".aside")
    write(aside)
    sync(aside)
    os.replace(aside, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """What was written to this file or folder is on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """All files and folders below, and the folder itself."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)
