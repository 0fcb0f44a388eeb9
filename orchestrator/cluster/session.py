"""The folder of a local Ray cluster, and the cleanup of a dead run's processes and folders.

Ray's session folder is writable by all users of a machine and holds the code that its workers import, so it is placed
inside a folder that only this user can enter. Ray's processes write their output there, which also identifies them.
"""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from execution.errors import UserError
from execution.workspace import hold, left, remove

PREFIX, INNER = "orchestrator-ray-", "r"
SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.10"  # the longest socket path of Ray
PATH = 107  # largest length of a socket's path in bytes
ENDED = 10.0  # seconds to wait for killed processes to end


@contextmanager
def session() -> Iterator[Path]:
    """A private folder for Ray's session; at the end of the block its processes are killed and it is removed."""
    folder, lock = hold(PREFIX, _place())
    try:
        (folder / INNER).mkdir()
        yield folder / INNER
    finally:
        clear(folder)
        lock.close()


def sweep(partial: Path, progress: Callable[[str], None]) -> None:
    """Remove what this user's dead processes left on this machine, and report it: Ray clusters with their processes,
    other temporary folders, and unfinished reports in the run's folder ``partial``."""
    places = {Path(tempfile.gettempdir()), _place()}
    for prefix, parent in [*((p, at) for p in (PREFIX, "orchestrator-") for at in places), ("report-", partial)]:
        for folder in left(prefix, parent):
            ended, gone = clear(folder)
            what = f"{f'{ended} processes, killed, and ' if ended else ''}{folder}"
            progress(f"left by a dead run: {what}, {'removed' if gone else 'which cannot be removed yet'}")


def clear(folder: Path) -> tuple[int, bool]:
    """Kill the processes that write their output below ``folder`` and remove it. Returns how many were killed, and
    whether it was removed, which it is not while one of them is alive.
    """
    killed: set[int] = set()
    until = time.monotonic() + ENDED
    while (alive := processes(folder)) and time.monotonic() < until:
        for pid in alive:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        killed.update(alive)
        time.sleep(0.02)
    return len(killed), not alive and remove(folder)


def processes(folder: Path) -> list[int]:
    """Ids of the other processes that write a ``.out`` file below ``folder``, as all of Ray's do.

    A driver that joined the cluster has other log files there and is not listed.
    """
    pids, below = [], f"{folder.resolve()}/"
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError):  # ended, or another user's
            if any(_writes(name, stream, below) for stream in os.listdir(f"/proc/{name}/fd")):
                pids.append(int(name))
    return pids


def _writes(process: str, stream: str, below: str) -> bool:
    with suppress(OSError):  # closed meanwhile
        file = os.readlink(f"/proc/{process}/fd/{stream}")
        if file.startswith(below) and file.endswith(".out"):
            flags = Path(f"/proc/{process}/fdinfo/{stream}").read_text().partition("flags:")[2].split()[0]
            return bool(int(flags, 8) & os.O_ACCMODE)
    return False


def close_token(make: bool, progress: Callable[[str], None]) -> None:
    """Make Ray's token private: whoever can read it can run code on the cluster. ``make``: create it if missing.

    If it cannot be made private: ``UserError`` with ``make``, as it would protect the local cluster; else a message.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    default = Path.home() / ".ray" / "auth_token"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or default)
    try:
        if path == default and make:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (
                suppress(FileExistsError),
                open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as new,
            ):
                new.write(secrets.token_hex(32))  # as Ray makes it
        if path == default and path.parent.exists() and path.parent.stat().st_mode & 0o077:
            path.parent.chmod(0o700)
        if path.exists() and path.stat().st_mode & 0o077:
            if path != default and not make:  # possibly shared by a group on purpose
                progress(
                    f"{path} can be read by other users, who can then run code on the cluster: `chmod 600` closes it"
                )
                return
            path.chmod(0o600)
            progress(
                f"{path} could be read by other users: closed now (`ray get-auth-token --generate` makes another token)"
            )
    except OSError as error:
        lack = f"{path} cannot be kept from other users ({error.strerror}): name one that can in RAY_AUTH_TOKEN_PATH"
        if make:
            raise UserError(lack) from None
        progress(lack)


def open_to_all(folder: Path) -> bool:
    """Whether every user of the machine can write into the folder."""
    modes = [path.stat().st_mode for path in (folder, *folder.parents)]
    return bool(modes[0] & 0o002) and all(mode & 0o001 for mode in modes)


def _place() -> Path:
    """The system's temporary folder, or ``/tmp`` if socket paths would be too long there; else ``UserError``."""
    for place in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(f"{place}/{PREFIX}12345678/{INNER}{SOCKET}")) <= PATH:
            return Path(place)
    raise UserError(f"TMPDIR={tempfile.gettempdir()} is too long for Ray's sockets: name a shorter folder")
