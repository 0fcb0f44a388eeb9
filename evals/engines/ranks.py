"""The processes that hold the shards of one model under tensor parallelism: one for each GPU, children of the engine's.

A killed engine leaves them for as long as vLLM needs to notice: while they load, until the model is loaded. They hold
their GPUs' memory until then, so that the next engine on these GPUs has none. Here the kernel ends them at once.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when the thread that started it ends


class Rank:
    """A class that vLLM adds to the bases of its worker's (``worker_extension_cls``)."""

    def __new__(cls, *_args: Any, **_settings: Any) -> Rank:
        """Before the worker loads anything: let its process be killed when the engine's ends."""
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it ended before the call
            os._exit(1)
        return super().__new__(cls)
