"""CKA of scaled copies of trainings to base, of the hidden states at every layer."""

from __future__ import annotations

from analysis.function.cka import linear_cka
from execution.context import Context
from execution.store import write_json
from orchestrator.measurements.grams import measured_at, read_grams
from orchestrator.runtime.threads import pin
from orchestrator.steps.features import FEATURES
from orchestrator.steps.similarity import TO_BASE
from orchestrator.steps.train import BASE


def measure_to_base(context: Context) -> None:
    """Write ``to_base.json``: debiased CKA to base of every copy at every layer."""
    pin(1)
    states = [place for place in measured_at(context.inputs[BASE]) if isinstance(place, int)]
    base = read_grams(context.inputs[BASE], states)
    rows = []
    for role, folder in context.inputs.items():
        if role.startswith(FEATURES):
            # Transformers' state 0 is the embeddings', state l + 1 that after layer l; our layers count from 0
            rows += [
                {"name": role.removeprefix(FEATURES), "layer": state - 1, "cka": linear_cka(x, y)}
                for state, x, y in zip(states, base, read_grams(folder, states), strict=True)
            ]
    write_json(context.out / TO_BASE, rows)
