"""Processes that tests need to be real, to be killed or to meet: forked from one that has imported torch already."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preloaded"])  # nothing of what it imports starts a thread


def run(
    function: Callable[..., None], calls: Sequence[Sequence[Any]], folder: Path, timeout: float = 180
) -> list[subprocess.CompletedProcess[str]]:
    """``function`` called once a process with each of ``calls``, all at once; waited for, at most ``timeout`` seconds
    each. What a process wrote to its standard streams is in its result, and goes through ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    streams = [(folder / f"{i}.out", folder / f"{i}.err") for i in range(len(calls))]
    processes = [
        FORKS.Process(target=_redirected, args=(function, call, *map(str, paths)))
        for call, paths in zip(calls, streams, strict=True)
    ]
    for process in processes:
        process.start()
    ended = []
    for process, paths in zip(processes, streams, strict=True):
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(function.__name__, timeout)
        ended.append(subprocess.CompletedProcess([], process.exitcode, *(path.read_text() for path in paths)))
    return ended


def _redirected(function: Callable[..., None], call: Sequence[Any], out: str, err: str) -> None:
    for descriptor, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
    function(*call)
