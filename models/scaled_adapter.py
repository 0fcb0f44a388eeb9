"""Writes a PEFT LoRA folder whose delta is another's times a number."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from models.adapter import AdapterFile, Start
from models.adapter_config import CONFIG, WEIGHTS


def write_scaled(folder: Path, target: Path, factor: float, start: Start = "a") -> None:
    """Write the adapter of ``folder`` to ``target`` with every ``dW = b @ a`` times ``factor``; both float32.

    The factor of a pair that began at zero is multiplied: B, or A with start b. The one that was drawn, the config and
    with it alpha stay as they are. One-line ``ValueError`` for a folder that ``AdapterFile`` refuses, weights saved
    beside the factors (they would stay as they are), and a factor that is not above zero and finite.
    """
    file = AdapterFile(folder)
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"{folder}: scaled by {factor}: the factor must be above zero and finite")
    beside = file.beside_factors()
    if beside:
        raise ValueError(f"{folder}: cannot be scaled: {beside[0]}")
    grown = ".lora_B." if start == "a" else ".lora_A."
    tensors = {name: tensor.double() for name, tensor in sorted(load_file(folder / WEIGHTS).items())}
    scaled = {name: (x * factor if grown in name else x).float().contiguous() for name, x in tensors.items()}
    target.mkdir(parents=True)
    save_file(scaled, target / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(folder / CONFIG, target / CONFIG)
