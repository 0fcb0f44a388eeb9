"""Writing so that a reader finds the old file or the new one, whole, whenever the writer or the machine stops.

What an unfinished attempt leaves to the next one carries its checksum: a *sealed* JSON object holds the SHA-256 of all
else in it, and through it of the other files that it names. What does not hold is thrown away, said, and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from execution.errors import ReproducibilityWarning

SEAL = "sha256"


class Lost(ReproducibilityWarning):
    """What an earlier attempt left does not hold: it was thrown away, and is made again."""


def seal(value: Mapping[str, Any]) -> str:
    """JSON of ``value``, on one line, with the SHA-256 of its JSON beside its keys."""
    return json.dumps({**value, SEAL: _sum(value)}, allow_nan=False)


def unseal(text: str | bytes) -> dict[str, Any]:
    """What was sealed; ``ValueError`` says in some words why it does not hold."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is empty" if not text.strip() else "it was cut or changed") from None
    if not isinstance(value, dict) or SEAL not in value:
        raise ValueError("it holds no checksum")
    found = value.pop(SEAL)
    if found != _sum(value):
        raise ValueError("its checksum is another")
    return value


def _sum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()


def keep(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``value`` sealed, for a later attempt to go on from; returns it as that attempt will read it."""
    text = seal(value)
    replace(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return unseal(text)


def recall(path: Path) -> dict[str, Any] | None:
    """What was kept at ``path``; None where nothing was. What does not hold is removed, and :class:`Lost` names it."""
    try:
        return unseal(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        lost(path, error, "it is made again")
        discard(path)
        return None


def lost(path: Path, error: Exception, mend: str) -> None:
    """Warn that ``path`` does not hold, and of what is done about it."""
    why: object = error
    if isinstance(error, OSError) and error.strerror:
        named = Path(error.filename).name if error.filename else path.name
        why = error.strerror if named == path.name else f"{named}: {error.strerror}"
    warnings.warn(f"{path} cannot be read ({why}): {mend}", Lost, stacklevel=3)


def discard(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def replace(path: Path, write: Callable[[Path], object], shared: bool = False) -> None:
    """``write`` to a file aside, bring it to the disk, rename it to ``path``.

    ``shared``: several processes may do so at once, for each other to read. Each then has a file aside of its own, and
    none waits for the disk.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.aside" if shared else f"{path.name}.aside")
    write(aside)
    if not shared:
        sync(aside)
    os.replace(aside, path)
    if not shared:
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
