"""The kinds of steps, one file each: how a kind is planned, run, placed, estimated and read back.

These files import nothing heavy; the computations are imported where a step runs.
"""

from __future__ import annotations

from execution.step import StepKind
from orchestrator.steps import (
    activations,
    base,
    connectivity,
    evaluate,
    features,
    geometry,
    losses,
    problems,
    reference,
    rollouts,
    sample,
    scale,
    similarity,
    spectra,
    train,
)
from orchestrator.steps.trials import search, validate

# In planning order: each kind reads steps of the kinds above it.
STEP_KINDS: dict[str, StepKind] = {
    "base": base.KIND,
    "sample": sample.KIND,
    "rollouts": rollouts.KIND,
    "problems": problems.KIND,
    "reference": reference.KIND,
    "train": train.KIND,
    "scale": scale.KIND,
    "validate": validate.KIND,
    "search": search.KIND,
    "evaluate": evaluate.KIND,
    "geometry": geometry.KIND,
    "activations": activations.KIND,
    "spectra": spectra.KIND,
    "losses": losses.KIND,
    "features": features.KIND,
    "connectivity": connectivity.KIND,
    "similarity": similarity.KIND,
}
