"""A training's adapter times a number: its update at the norm of the reference's."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.weights.geometry import total_norm
from execution.context import Context
from execution.store import write_json
from models.adapter import load_factors
from models.scaled_adapter import write_scaled
from orchestrator.steps.scale import FILE, REFERENCE, TRAINING


def scale(context: Context) -> None:
    """Write ``adapter/`` and ``scaled.json``: the factor, and the norms of the update before and after it and of the
    reference's.

    ``ValueError`` where one of the two has no direction or no norm: its update is zero, or was made of rounding alone.
    """
    config, own = context.config, context.inputs[TRAINING]
    norms = {
        name: _norm(folder, name)
        for name, folder in ((config["of"], own), (config["to"], context.inputs[REFERENCE]))
    }  # fmt: skip
    before, reference = norms[config["of"]], norms[config["to"]]
    factor = reference / before
    write_scaled(own / "adapter", context.out / "adapter", factor, context.runtime["start"])
    after = total_norm(load_factors(context.out / "adapter"))
    note = {"factor": factor, "norm_before": before, "norm": after, "reference_norm": reference}
    write_json(context.out / FILE, {**config, **note})


def _norm(training: Path, name: str) -> float:
    """The norm of a finished training's update."""
    if json.loads((training / "training.json").read_text())["noise"]:
        raise ValueError(f"the update of {name} was made of rounding: scaled, it would be rounding still")
    norm = total_norm(load_factors(training / "adapter"))
    if norm == 0:
        raise ValueError(f"the update of {name} is zero: no factor gives it a norm, and none gives another its norm")
    return norm
