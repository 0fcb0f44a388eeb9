"""The folder of a Ray cluster that is started here, and what a dead run's cluster left: processes and folder.

Ray opens its own folder to all users of a machine and keeps the code there that its workers import. So it gets one
inside a folder that nobody else may enter. The folder also tells whose a process is: Ray's processes write their
output into it.
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
SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.10"  # the longest that Ray makes
PATH = 107  # bytes that a socket's path may have
ENDED = 10.0  # seconds that a killed process is given to be gone


@contextmanager
def session() -> Iterator[Path]:
    """A folder for Ray's session, closed to other users; at the end what still runs in it is ended, and it goes."""
    folder, lock = hold(PREFIX, _place())
    try:
        (folder / INNER).mkdir()
        yield folder / INNER
    finally:
        clear(folder)
        lock.close()


def sweep(partial: Path, say: Callable[[str], None]) -> None:
    """End and remove what this user's dead processes left on this machine, and say so: clusters with their processes,
    other temporary folders, and unfinished reports in the run's folder ``partial``."""
    places = {Path(tempfile.gettempdir()), _place()}
    for prefix, parent in [*((p, at) for p in (PREFIX, "orchestrator-") for at in places), ("report-", partial)]:
        for folder in left(prefix, parent):
            ended, gone = clear(folder)
            told = f"{f'{ended} processes, ended, and ' if ended else ''}{folder}"
            say(f"left by a dead run: {told}, {'removed' if gone else 'which cannot be removed yet'}")


def clear(folder: Path) -> tuple[int, bool]:
    """Kill the processes that write their output below ``folder``, and remove it: how many these were, and whether it
    is gone. It stays where a process outlives its kill.
    """
    killed: set[int] = set()
    until = time.monotonic() + ENDED
    while (found := processes(folder)) and time.monotonic() < until:
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
        time.sleep(0.02)
    return len(killed), not found and remove(folder)


def processes(folder: Path) -> list[int]:
    """The processes, but this one, whose output goes into a file below ``folder``, as that of all of Ray's does.

    A driver that has joined the cluster has logs of its own there, and goes on without it.
    """
    found, below = [], f"{folder.resolve()}/"
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError):  # gone, or another user's
            if any(_writes(name, stream, below) for stream in os.listdir(f"/proc/{name}/fd")):
                found.append(int(name))
    return found


def _writes(process: str, stream: str, below: str) -> bool:
    with suppress(OSError):  # closed meanwhile
        file = os.readlink(f"/proc/{process}/fd/{stream}")
        if file.startswith(below) and file.endswith(".out"):
            flags = Path(f"/proc/{process}/fdinfo/{stream}").read_text().partition("flags:")[2].split()[0]
            return bool(int(flags, 8) & os.O_ACCMODE)
    return False


def close_token(make: bool, say: Callable[[str], None]) -> None:
    """Ray's token for its own user alone: who reads it may run code on the cluster. ``make`` it where there is none.

    One that stays open to others is a ``UserError`` where it is to guard what is started here (``make``); else said.
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
            if path != default and not make:  # a group's, perhaps: its cluster is not ours either
                say(f"{path} can be read by other users, who can then run code on the cluster: `chmod 600` closes it")
                return
            path.chmod(0o600)
            say(
                f"{path} could be read by other users: closed now (`ray get-auth-token --generate` makes another token)"
            )
    except OSError as error:
        lack = f"{path} cannot be kept from other users ({error.strerror}): name one that can in RAY_AUTH_TOKEN_PATH"
        if make:
            raise UserError(lack) from None
        say(lack)


def open_to_all(folder: Path) -> bool:
    """Whether every user of the machine can come to the folder and write into it."""
    modes = [path.stat().st_mode for path in (folder, *folder.parents)]
    return bool(modes[0] & 0o002) and all(mode & 0o001 for mode in modes)


def _place() -> Path:
    """The system's folder for temporary files, or ``/tmp`` where a socket's path would become too long in it."""
    for place in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(f"{place}/{PREFIX}12345678/{INNER}{SOCKET}")) <= PATH:
            return Path(place)
    raise UserError(f"TMPDIR={tempfile.gettempdir()} is too long for Ray's sockets: name a shorter folder")
