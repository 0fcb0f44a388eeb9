"""CKA between models: layers count from 0, as in the modules' names."""

from __future__ import annotations

import numpy as np

from orchestrator.measurements.similarity import compare


def test_the_state_after_a_layer_has_its_number() -> None:
    """Transformers' first state is the embeddings': layer -1 here, and the modules of layer 0 stand beside state 0."""
    draws = np.random.default_rng(0).normal(size=(2, 3, 8, 5))
    name = "model.layers.0.self_attn.q_proj"
    one, two = (
        {"hidden": {state: x[state] @ x[state].T for state in range(3)}, "modules": {name: x[0] @ x[0].T}}
        for x in draws
    )
    ((a, b, hidden, modules),) = compare(([("base", "sft", one, two)], 4, 0), {})
    assert (a, b) == ("base", "sft")
    assert [row["layer"] for row in hidden] == [-1, 0, 1]
    assert [(row["module"], row["layer"], row["projection"]) for row in modules] == [(name, 0, "q_proj")]
