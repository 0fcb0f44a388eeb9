"""Start times: the date to display, and the elapsed seconds by the monotonic clock."""

from __future__ import annotations

import time
from typing import NamedTuple


class Began(NamedTuple):
    """``date`` in seconds since 1970, ``monotonic`` in seconds of ``time.monotonic``."""

    date: float
    monotonic: float

    @classmethod
    def now(cls) -> Began:
        return cls(time.time(), time.monotonic())

    def seconds(self) -> float:
        return time.monotonic() - self.monotonic
