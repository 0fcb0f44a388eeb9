"""CKA between models, from a file of Grams each: layers count from 0, as in the modules' names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from execution.context import Context, NoResources
from execution.execute import serial_map
from orchestrator.measurements.grams import measured_at, read_grams, write_grams
from orchestrator.measurements.similarity import measure_similarity
from orchestrator.steps.similarity import FILE

MODULES = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(11)]
CONFIG = {"position": "last", "groups": 4, "seed": 0}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Of two models besides the base: Grams of 8 prompts at 12 states and at 11 modules."""
    generator = torch.Generator().manual_seed(0)
    folders = {role: tmp_path / role for role in ("base", "features:sft", "features:dpo")}
    for folder in folders.values():
        folder.mkdir()
        states = [torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in range(12)]
        grams = [x @ x.T for x in states]
        write_grams(
            folder, dict(enumerate(grams)), {module: x.clone() for module, x in zip(MODULES, grams, strict=False)}
        )
    return folders


@pytest.fixture
def compared(inputs: dict[str, Path], tmp_path: Path) -> Callable[[int], bytes]:
    """A function from the number of workers to what is written."""

    def run(slots: int) -> bytes:
        out = tmp_path / f"out{slots}"
        out.mkdir()
        mapped, quiet = serial_map(inputs), lambda line: None
        context = Context(CONFIG, {}, inputs, out, out, lambda: None, quiet, mapped, NoResources(), slots)
        measure_similarity(context)
        return (out / FILE).read_bytes()

    return run


def test_the_state_after_a_layer_has_its_number(compared: Callable[[int], bytes]) -> None:
    """Transformers' first state is the embeddings': layer -1 here, and the modules of layer 0 stand beside state 0."""
    found = json.loads(compared(1))
    pairs = [("base", "sft"), ("base", "dpo"), ("sft", "dpo")]
    assert found["prompts"] == 8
    assert [(r["a"], r["b"], r["layer"]) for r in found["hidden"]] == [(*p, n) for p in pairs for n in range(-1, 11)]
    modules = [(row["a"], row["b"], row["module"], row["layer"]) for row in found["modules"]]
    assert modules == [(*pair, name, layer) for pair in pairs for layer, name in enumerate(MODULES)]
    assert {row["projection"] for row in found["modules"]} == {"q_proj"}
    # Planted: a module's Gram is that of the state of the same number.
    by_layer = {(row["a"], row["b"], row["layer"] + 1): row["cka"] for row in found["hidden"]}
    assert all(row["cka"] == by_layer[row["a"], row["b"], row["layer"]] for row in found["modules"])


def test_the_number_of_workers_changes_no_byte(compared: Callable[[int], bytes]) -> None:
    assert compared(1) == compared(5) == compared(64)


def test_a_file_of_grams_is_read_in_order_and_in_full(inputs: dict[str, Path]) -> None:
    assert measured_at(inputs["base"]) == [*range(12), *MODULES], "layer 10 stands behind layer 9, not behind 1"
    state, module = read_grams(inputs["base"], [10, MODULES[10]])
    assert state.shape == (8, 8) and state.dtype == torch.float64 and torch.equal(state, module)
