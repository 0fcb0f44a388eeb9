"""One model's features on the prompts that models are compared on, as Grams in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from analysis.function.cka import gram
from analysis.function.forward import attached, features
from execution.context import Context
from models.base import load, targeted
from models.module_names import natural_key
from orchestrator.evaluation.problems import read_problems
from orchestrator.measurements.losses import factors_of
from orchestrator.runtime.device import device
from orchestrator.steps.base import model_folder
from orchestrator.steps.features import FILE

HIDDEN, MODULE = "hidden.", "module."  # prefixes of the tensors' names


def measure_features(context: Context) -> None:
    """Write ``grams.safetensors``: float64 n x n of n prompts, of each layer's hidden states and each module."""
    config = context.config
    problems = read_problems(context.inputs["problems"])[0]["problems"][: config["prompts"]]
    model = load(model_folder(context.inputs["base"]), "float32", config["attention"], device())
    modules = sorted(targeted(model, config["targets"]), key=natural_key)
    context.progress(f"{len(problems)} prompts")
    with attached(model, factors_of(context.inputs)):
        seen = features(model, [p["prompt_ids"] for p in problems], config["position"], modules)
    write_grams(
        context.out,
        {layer: gram(x) for layer, x in seen["hidden"].items()},
        {name: gram(x) for name, x in seen["modules"].items()},
    )


def write_grams(folder: Path, hidden: dict[int, Tensor], modules: dict[str, Tensor]) -> None:
    """Grams by layer and by module."""
    named = {f"{HIDDEN}{layer}": x for layer, x in hidden.items()} | {f"{MODULE}{m}": x for m, x in modules.items()}
    save_file(named, folder / FILE)


def measured_at(folder: Path) -> list[int | str]:
    """Where a file has Grams: layers, in order, then modules, in natural order."""
    with safe_open(folder / FILE, framework="pt") as file:
        names = list(file.keys())
    layers = sorted(int(name.removeprefix(HIDDEN)) for name in names if name.startswith(HIDDEN))
    modules = sorted((n.removeprefix(MODULE) for n in names if n.startswith(MODULE)), key=natural_key)
    return [*layers, *modules]


def read_grams(folder: Path, places: Sequence[int | str]) -> list[Tensor]:
    """The Grams at these layers and modules."""
    with safe_open(folder / FILE, framework="pt") as file:
        names = [f"{HIDDEN if isinstance(place, int) else MODULE}{place}" for place in places]
        return [file.get_tensor(name).to(torch.float64) for name in names]
