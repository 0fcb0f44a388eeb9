"""When something began: the date to be shown, and the seconds since by a clock that nobody sets."""

from __future__ import annotations

import time
from typing import NamedTuple


class Began(NamedTuple):
    """``date`` in seconds since 1970, ``monotonic`` in this machine's own seconds, which only ever grow."""

    date: float
    monotonic: float

    @classmethod
    def now(cls) -> Began:
        return cls(time.time(), time.monotonic())

    def seconds(self) -> float:
        return time.monotonic() - self.monotonic
