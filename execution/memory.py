"""The most memory that this process has used while a step ran: its own, and on a GPU that torch uses."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

GIB = 2**30
RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
PEAK = "VmHWM:"  # kB, since the process began or since "5" was written to RESET


class PeakMemory:
    """Counts from its making on. Other processes that a step starts (an engine's, a grader's) are not in it."""

    def __init__(self) -> None:
        self._counts = False
        with contextlib.suppress(OSError):
            RESET.write_text("5")
            self._counts = STATUS.is_file()
        if cuda := _cuda():
            cuda.reset_peak_memory_stats()

    def seen(self) -> dict[str, float]:
        """``peak_gib``, resident (Linux alone), and ``gpu_peak_gib``, allocated by torch; absent if unknown."""
        peaks = {}
        if self._counts:
            line = next(line for line in STATUS.read_text().splitlines() if line.startswith(PEAK))
            peaks["peak_gib"] = int(line.split()[1]) * 1024 / GIB
        if cuda := _cuda():
            peaks["gpu_peak_gib"] = cuda.max_memory_allocated() / GIB
        return peaks


def _cuda() -> Any:
    """``torch.cuda`` where it is in use, else None; this package imports no torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
