"""The objectives, one file each, and what they declare about themselves; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods.objectives import dft, dpo, offline_grpo, rft, rift, sft
from methods.objectives.method import Method, Setting

METHODS: dict[str, Method] = {
    "sft": sft.METHOD,
    "rft": rft.METHOD,
    "dft": dft.METHOD,
    "rift": rift.METHOD,
    "offline_grpo": offline_grpo.METHOD,
    "dpo": dpo.METHOD,
}


def check(method: str, settings: Mapping[str, Any]) -> dict[str, Setting]:
    """All settings of ``method``, defaults filled in; ``ValueError`` on whatever is unknown or mistyped."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known methods: {', '.join(METHODS)}")
    return METHODS[method].check(method, settings)


__all__ = ["METHODS", "Method", "check"]
