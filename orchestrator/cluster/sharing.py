"""GPUs for a step that maps items: the driver says how many it has, the step runs so many items at once.

Without this the items of one step would queue in Ray for every GPU, beside what the driver places and before steps of
a higher rank.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

POLL = 0.3  # seconds between questions how many items may run


class Shares:
    """Between driver and mapping tasks, by the job's mark: GPUs given to it, and items that have not ended."""

    def __init__(self) -> None:
        self._room: dict[int, int] = {}
        self._left: dict[int, int] = {}

    def give(self, mark: int, room: int) -> None:
        self._room[mark] = room

    def left(self) -> dict[int, int]:
        """Items that have not ended, by job: none before it has any, nor at its end."""
        return dict(self._left)

    def room(self, mark: int, left: int) -> int:
        """How many items of the job may run at once, of ``left`` that have not ended."""
        self._left[mark] = left
        return self._room.get(mark, 0)


SharesActor = ray.remote(num_cpus=0, max_restarts=0)(Shares)


def map_within(items: Sequence[Any], begin: Callable[[Any], Any], room: Callable[[int], int]) -> list[Any]:
    """Results in the items' order; ``begin(item)`` starts a task, ``room(left)`` says how many may run at once."""
    running: dict[Any, int] = {}
    results: dict[int, Any] = {}
    started = 0
    while (left := len(items) - len(results)) > 0:
        allowed = room(left)
        while started < len(items) and len(running) < allowed:
            running[begin(items[started])] = started
            started += 1
        if not running:
            time.sleep(POLL)
            continue
        for ref in ray.wait(list(running), timeout=POLL)[0]:
            results[running.pop(ref)] = ray.get(ref)
    room(0)
    return [results[i] for i in range(len(items))]
