"""A pool of processes that run ``evals/algebra.py``, started as the work requires."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("algebra.py")
MOST = 8  # processes by default: each takes about 100 MB
WORTH_A_PROCESS = 50  # requests per further process: as much work as its start, 1-3 s on an idle core
START_SECONDS = 120.0
PATIENCE = 20.0  # multiple of a request's time limit in wall-clock time after which its process counts as stuck

Request = tuple[str, str | None]  # gold and answer; None asks whether the gold can be read


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    deadline: float
    ready: bool = False
    request: int | None = None  # index of its current request

    @property
    def waited_for(self) -> bool:
        return not self.ready or self.request is not None


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Answers requests in up to ``workers`` processes, with at most ``seconds`` of processor time per request.

    A request that takes longer is answered False. One whose process dies is tried once more, as it may have been
    killed from outside, and then answered False. ``RuntimeError`` if math-verify does not start.
    """

    def __init__(self, seconds: float, workers: int | None = None) -> None:
        self.seconds = seconds
        self.workers = min(MOST, cores()) if workers is None else max(1, workers)
        self._workers: list[_Worker] = []

    @property
    def processes(self) -> list[int]:
        """Ids of the running processes; each leads its own process group."""
        return [worker.process.pid for worker in self._workers]

    def ask(self, requests: Sequence[Request]) -> list[bool]:
        """The verdicts, in order of the requests."""
        verdicts = [False] * len(requests)
        waiting, lost = deque(range(len(requests))), set[int]()
        try:
            while waiting or any(worker.request is not None for worker in self._workers):
                while len(self._workers) < min(self.workers, 1 + len(waiting) // WORTH_A_PROCESS):
                    self._workers.append(self._start())
                for worker in self._workers:
                    if waiting and not worker.waited_for:
                        worker.request = waiting.popleft()
                        self._send(worker, requests[worker.request])
                for index, reply in self._replies():
                    if reply.get("verdict") is None and not reply.get("late") and index not in lost:
                        lost.add(index)
                        waiting.appendleft(index)
                    else:
                        verdicts[index] = bool(reply.get("verdict"))
        except BaseException:  # a verdict still on its way would be taken for the next request's
            self.close()
            raise
        return verdicts

    def close(self) -> None:
        """End the processes, if any. The pool may be used again."""
        while self._workers:
            self._end(self._workers[-1])

    def _start(self) -> _Worker:
        # An engine's LD_PRELOAD is not for the child; sympy iterates over sets in the order of their hashes.
        environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"} | {"PYTHONHASHSEED": "0"}
        process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],  # -P keeps this package's folder off the child's path
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # own group, to be killed with its fork and to not receive Ctrl-C
        )
        return _Worker(process, time.monotonic() + START_SECONDS)

    def _send(self, worker: _Worker, request: Request) -> None:
        gold, answer = request
        line = json.dumps({"gold": gold, "answer": answer, "seconds": self.seconds}).encode() + b"\n"
        worker.deadline = time.monotonic() + self.seconds * PATIENCE
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it died while idle: reading its output will show that
            worker.process.stdin.write(line)
            worker.process.stdin.flush()

    def _replies(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Wait for a reply or a deadline; yield (request, reply) of each process that replied, died or is stuck."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                if worker.waited_for:
                    assert worker.process.stdout is not None
                    selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            first = min(worker.deadline for worker in self._workers if worker.waited_for)
            heard: list[_Worker] = [key.data for key, _ in selector.select(max(0.0, first - time.monotonic()))]
        now = time.monotonic()
        for worker in heard or [w for w in self._workers if w.waited_for and w.deadline <= now]:
            reply = self._hear(worker) if heard else {"late": True}
            if not heard or not reply:
                self._end(worker)
            if not worker.ready and not reply.get("ready"):
                raise RuntimeError("math-verify does not start; try: python -c 'import math_verify'")
            worker.ready = True
            if worker.request is not None:
                yield worker.request, reply
                worker.request = None

    def _hear(self, worker: _Worker) -> dict[str, Any]:
        """The process's reply; empty if it has ended."""
        assert worker.process.stdout is not None
        line = worker.process.stdout.readline()
        return dict(json.loads(line)) if line else {}

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        process = worker.process
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        if not worker.waited_for:  # it ends by itself after its fork
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
