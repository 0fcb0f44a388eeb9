"""A model's Grams in a file: light, so that what compares models need not import what passes prompts through them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.module_names import natural_key
from orchestrator.steps.features import FILE

HIDDEN, MODULE = "hidden.", "module."  # prefixes of the tensors' names


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
