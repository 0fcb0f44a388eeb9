"""Training objectives on one training loop: tokens and rewards in, adapters out. This module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods import dft, dpo, offline_grpo, rft, rift, sft
from methods.method import Method, Setting

METHODS: dict[str, Method] = {
    "sft": sft.METHOD,
    "rft": rft.METHOD,
    "dft": dft.METHOD,
    "rift": rift.METHOD,
    "offline_grpo": offline_grpo.METHOD,
    "dpo": dpo.METHOD,
}


def check(method: str, settings: Mapping[str, Any]) -> dict[str, Setting]:
    """All settings of ``method``, defaults filled in; ``ValueError`` on an unknown method or setting or a bad value."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known methods: {', '.join(METHODS)}")
    return METHODS[method].check(method, settings)


__all__ = ["METHODS", "Method", "check"]
