"""One file a kind of step, each a plain function of a Context that runs without Ray."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from orchestrator.context import Context

KINDS = (
    "base",
    "rollouts",
    "problems",
    "reference",
    "train",
    "evaluate",
    "geometry",
    "activations",
    "spectra",
    "connectivity",
    "similarity",
)


def helper_of(kind: str) -> Callable[..., None]:
    """``assist(config, where, inputs)`` of a kind whose steps run on several workers."""
    return importlib.import_module(f"orchestrator.steps.{kind}").assist


def function_of(kind: str) -> Callable[[Context], None]:
    """``run(context)`` of the kind's module, imported when it is first needed: these modules are heavy."""
    assert kind in KINDS, kind
    return importlib.import_module(f"orchestrator.steps.{kind}").run
