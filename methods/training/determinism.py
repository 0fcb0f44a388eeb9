"""Bitwise reproducible training: fixed threads and deterministic kernels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from execution.errors import ReproducibilityWarning, first_line

T = TypeVar("T")

# For a GPU. In deterministic mode torch refuses cuBLAS without the first, and cuBLAS reads it at a process's first
# matrix product, so it must be set before any library multiplies. The second is read by Transformers.
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}


class Unordered(ReproducibilityWarning):
    """The model has an operation without a deterministic kernel: bytes differ from run to run."""


@contextmanager
def deterministic(threads: int, device: str = "cpu") -> Iterator[None]:
    """Run the block with ``threads`` intra-op threads, and on a GPU with deterministic algorithms only.

    Without them, the backward pass of fused attention adds in varying order on rows of more than a few hundred tokens.
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
    """``compute()``; if an operation has no deterministic kernel, warn :class:`Unordered`, switch deterministic
    algorithms off from here on and compute again."""
    try:
        return compute()
    except RuntimeError as error:
        if "use_deterministic_algorithms" not in str(error):  # named in torch's error
            raise
        warnings.warn(f"bytes will differ from run to run: {first_line(error, most=None)}", Unordered, stacklevel=2)
    torch.use_deterministic_algorithms(False)
    return compute()
