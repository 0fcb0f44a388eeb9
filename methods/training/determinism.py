"""The same sums in the same order: what the last bits of a training depend on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from execution.errors import ReproducibilityWarning, first_line

T = TypeVar("T")

# For a GPU: torch refuses cuBLAS without the first, and looks at it once, when a process first multiplies. So it is set
# before that where another library may multiply earlier. The second is read by Transformers.
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}


class Unordered(ReproducibilityWarning):
    """The model has an operation that adds in any order: bytes differ from run to run."""


@contextmanager
def deterministic(threads: int, device: str = "cpu") -> Iterator[None]:
    """Run with so many intra-op threads, and on a GPU without kernels that add as their blocks happen to end.

    The backward passes of fused attention are such kernels, on rows of more than a few hundred tokens.
    """
    before, held = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    try:
        if device != "cpu":
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
            torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(held)


def in_order(compute: Callable[[], T]) -> T:
    """``compute()``; where the model has an operation that knows no order, again, and from now on, without one."""
    try:
        return compute()
    except RuntimeError as error:
        if "use_deterministic_algorithms" not in str(error):  # torch's own word in such an error
            raise
        warnings.warn(f"bytes will differ from run to run: {first_line(error, most=None)}", Unordered, stacklevel=2)
    torch.use_deterministic_algorithms(False)
    return compute()
