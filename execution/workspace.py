"""Folders that one process works in alone, and which dead process's folders are left.

Who works in a folder holds the lock of a file in it, which the kernel gives back when the process ends, however it
ends, and notes in that file which process it is. Dead is who has left both: some file systems know locks of one
machine alone.
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
ENDING = 60.0  # seconds that the last holder of a workspace is given to die


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the file's lock. A killed run's worker may live on for some seconds: it is waited for, not joined.

    ``BlockingIOError`` where it does not die.
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
    """A new folder of this process's own below ``parent`` (the system's for temporary files), for its user alone
    (0700); removed at the end. What dead processes left there under the same prefix is removed before.
    """
    parent = parent or Path(tempfile.gettempdir())
    for folder in left(prefix, parent):
        remove(folder)
    folder, lock = hold(prefix, parent)
    try:
        yield folder
    finally:
        lock.close()  # before: a network file system keeps the name of an open file
        remove(folder)


def remove(folder: Path) -> bool:
    """Remove a folder of :func:`hold`, its lock last: as long as something is left, the next start finds it. Whether
    it is gone; what cannot be removed now is no error.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != LOCK:
                durable.discard(path)
        durable.discard(folder)
    return not folder.exists()


def hold(prefix: str, parent: Path) -> tuple[Path, IO[str]]:
    """A new folder below ``parent`` (0700), and the open file whose closing gives it up."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):  # somebody who swept took it for a dead one's before it was locked
            lock = (folder / LOCK).open("a")
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(durable.seal(note()))
            lock.flush()
            if (folder / LOCK).stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return folder, lock


def left(prefix: str, parent: Path) -> Iterator[Path]:
    """The folders that this user's processes held below ``parent`` and left when they died, each while locked."""
    for folder in sorted(parent.glob(f"{prefix}*")):
        try:
            told = folder.lstat()
            if not stat.S_ISDIR(told.st_mode) or told.st_uid != os.getuid():
                continue
            with (folder / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if lives(durable.unseal(lock.read())) is False:
                    yield folder
        except (OSError, ValueError):  # held, gone or begun at this moment, or no folder of ours
            continue
