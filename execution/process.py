"""Which process this is, told so that another one can know whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def note() -> dict[str, Any]:
    """This process: host, process id, when it began, and whose processes it sees."""
    me: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "born": None}
    with suppress(OSError):
        me["born"] = born(os.getpid())
    return me | _here()


def lives(told: Mapping[str, Any]) -> bool | None:
    """Whether the process that left this :func:`note` lives; None where this one cannot know that."""
    pid, begun, here = told.get("pid"), told.get("born"), _here()
    if not all(value and told.get(name) == value for name, value in here.items()) or not begun:
        return None
    if not isinstance(pid, int) or not 0 < pid < 2**31:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's: it is there, whichever it is
        pass
    try:
        return born(pid) == begun  # a process id alone may be another's by now
    except OSError:  # a machine that hides other users' processes
        return None


def born(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None where it has ended, collected or not. ``OSError`` if unseen."""
    state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def _here() -> dict[str, str]:
    """Whose processes this one sees: the machine, its start, the namespace of processes; empty where not known.

    Two containers, and two machines made from one image, can have the same host name and the same process ids.
    """
    own = _text("/proc/self/stat").partition(" ")[0] == str(os.getpid())  # else /proc tells of another namespace
    return {
        "machine": _text("/etc/machine-id") or "unnamed",  # as many containers are; the start is told apart anyway
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "processes": _link("/proc/self/ns/pid") if own else "",
    }


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
