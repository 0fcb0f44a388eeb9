"""Which device this process computes on."""

from __future__ import annotations


def device() -> str:
    """``cuda`` where this process was given a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
