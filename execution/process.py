"""Identifies this process so that another one can tell whether it is still alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def note() -> dict[str, Any]:
    """This process: host, process id, start time, and the process namespace that it runs in."""
    me: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "born": None}
    with suppress(OSError):
        me["born"] = born(os.getpid())
    return me | _here()


def lives(noted: Mapping[str, Any]) -> bool | None:
    """Whether the process that wrote this :func:`note` is alive; None where that cannot be known from here."""
    pid, begun, here = noted.get("pid"), noted.get("born"), _here()
    if not all(value and noted.get(name) == value for name, value in here.items()) or not begun:
        return None
    if not isinstance(pid, int) or not 0 < pid < 2**31:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process has this id
        pass
    try:
        return born(pid) == begun  # the id may have been reused
    except OSError:  # /proc hides other users' processes
        return None


def born(pid: int) -> str | None:
    """A process's start time in clock ticks since boot; None if it is a zombie or dead. ``OSError`` without access."""
    state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def _here() -> dict[str, str]:
    """Machine id, boot id and process namespace; empty strings where unknown.

    Two containers, or two machines made from one image, can have the same host name and process ids.
    """
    own = _text("/proc/self/stat").partition(" ")[0] == str(os.getpid())  # else /proc is of another namespace
    return {
        "machine": _text("/etc/machine-id") or "unnamed",  # as many containers are; the boot id differs
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
