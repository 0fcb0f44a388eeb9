"""Folders that one process uses alone, and the cleanup of dead processes' folders.

The process holds the lock of a file in its folder, which the kernel releases when the process ends, and writes its
:func:`~execution.process.note` into that file. A folder counts as abandoned only if the lock is free and the noted
process has ended: on some file systems a lock is seen on one machine only.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from execution import durable
from execution.process import lives, note

LOCK = "lock"
ENDING = 60.0  # seconds to wait for a workspace's last holder to end


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the file's lock, waiting for a killed run's worker, which may live for some more seconds.

    ``BlockingIOError`` if it still runs after ``ENDING`` seconds.
    """
    with path.open("a") as lock:
        until = time.monotonic() + ENDING
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise BlockingIOError(f"another process still works in {path.parent}: end it") from None
                time.sleep(0.2)
        yield


@contextmanager
def own(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder below ``parent`` (default: the system's temporary folder), mode 0700, removed at the end of the
    block. Dead processes' folders with the same prefix are removed first.
    """
    parent = parent or Path(tempfile.gettempdir())
    for folder in left(prefix, parent):
        remove(folder)
    folder, lock = hold(prefix, parent)
    try:
        yield folder
    finally:
        lock.close()  # before the removal: a network file system keeps an open file's name
        remove(folder)


def remove(folder: Path) -> bool:
    """Remove a folder of :func:`hold`, its lock last, so that a later run can find what remains. Returns whether it was
    removed whole; files that cannot be removed now are no error.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != LOCK:
                durable.discard(path)
        durable.discard(folder)
    return not folder.exists()


def hold(prefix: str, parent: Path) -> tuple[Path, IO[str]]:
    """A new folder below ``parent`` (mode 0700), and its open lock file; closing the file releases the folder."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):  # another process's cleanup removed it before it was locked
            lock = (folder / LOCK).open("a")
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(durable.seal(note()))
            lock.flush()
            if (folder / LOCK).stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return folder, lock


def left(prefix: str, parent: Path) -> Iterator[Path]:
    """Yield the folders below ``parent`` that dead processes of this user left, each while its lock is held."""
    for folder in sorted(parent.glob(f"{prefix}*")):
        try:
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            with (folder / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if lives(durable.unseal(lock.read())) is False:
                    yield folder
        except (OSError, ValueError):  # locked, removed or created just now, or not one of our folders
            continue
