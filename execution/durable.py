"""Atomic writes: whenever the writer or the machine stops, a reader sees the whole old file or the whole new one.

What an unfinished attempt leaves to the next one carries a checksum: a *sealed* JSON object holds the SHA-256 of its
other values, among them the checksums of the files that it names. State that fails its checksum is removed with a
warning and computed again.
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
    """An earlier attempt's state failed its checksum: it was removed and is computed again."""


def seal(value: Mapping[str, Any]) -> str:
    """JSON of ``value``, on one line, with the SHA-256 of its JSON beside its keys."""
    return json.dumps({**value, SEAL: _sum(value)}, allow_nan=False)


def unseal(text: str | bytes) -> dict[str, Any]:
    """The value that was sealed. ``ValueError`` says in a few words what is wrong with ``text``."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is empty" if not text.strip() else "it was cut or changed") from None
    if not isinstance(value, dict) or SEAL not in value:
        raise ValueError("it has no checksum")
    expected = value.pop(SEAL)
    if expected != _sum(value):
        raise ValueError("its checksum does not match")
    return value


def _sum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()


def keep(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``value`` sealed, for a later attempt to resume from; returns it as that attempt will read it."""
    text = seal(value)
    replace(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return unseal(text)


def recall(path: Path) -> dict[str, Any] | None:
    """What :func:`keep` wrote to ``path``; None where there is nothing. A damaged file is removed with a :class:`Lost`
    warning, and None returned."""
    try:
        return unseal(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        lost(path, error, "it is made again")
        discard(path)
        return None


def lost(path: Path, error: Exception, mend: str) -> None:
    """Warn that ``path`` cannot be read; ``mend`` says what is done about it."""
    why: object = error
    if isinstance(error, OSError) and error.strerror:
        named = Path(error.filename).name if error.filename else path.name
        why = error.strerror if named == path.name else f"{named}: {error.strerror}"
    warnings.warn(f"{path} cannot be read ({why}): {mend}", Lost, stacklevel=3)


def discard(path: Path) -> None:
    """Remove a file, or a folder with its contents, if it exists."""
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
    """``write`` to a temporary file, fsync it, rename it to ``path``.

    ``shared``: several processes may write ``path`` at once; each uses a temporary file of its own, and there is no
    fsync.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.aside" if shared else f"{path.name}.aside")
    write(aside)
    if not shared:
        sync(aside)
    os.replace(aside, path)
    if not shared:
        sync(path.parent)


def sync(path: Path) -> None:
    """fsync a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """fsync all files and folders below ``folder``, and the folder itself."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)
