"""Swaps an adapter into an engine's weights: W + s B A instead of W, in float32, and W again afterwards.

The engine loads these weights like a model's file, so this works with any layout of its weights. The base is restored
from its file, never by subtraction, so nothing of an adapter remains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from models.adapter import AdapterFile
from models.adapter_config import load_config

# Settings under which the update is not one scale times B A.
OTHER = ("use_dora", "rank_pattern", "alpha_pattern", "lora_bias", "fan_in_fan_out", "modules_to_save")


class Swap:
    """The weights of a base model's folder with at most one adapter added."""

    def __init__(self, model: Path) -> None:
        self._files = {name: file for file in sorted(model.glob("*.safetensors")) for name in _names(file)}
        self._within: set[str] = set()  # modules whose loaded weights contain an adapter, or may

    def weights(self, adapter: Path | None) -> Iterator[tuple[str, torch.Tensor]]:
        """(name in the file, weight) pairs to load so that the weights are those with ``adapter`` (None: the base).

        A changed module comes with all weights of its parent module: an engine that keeps q, k and v as one matrix
        loads them together. ValueError, before the first pair, for an adapter that is not a plain LoRA of this base.
        """
        deltas = {} if adapter is None else _deltas(adapter)
        for module in deltas:
            if f"{module}.weight" not in self._files:
                raise ValueError(f"{adapter}: adapts {module}, which the base does not have: it is of another base")
        self._within |= deltas.keys()
        return self._read({module.rpartition(".")[0] for module in self._within}, deltas)

    def _read(
        self, parents: Collection[str], deltas: dict[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        for name, file in self._files.items():
            module = name.rpartition(".")[0]
            if module.rpartition(".")[0] not in parents:
                continue
            with safe_open(file, "pt") as opened:
                weight = opened.get_tensor(name)
            if module in deltas and name.endswith(".weight"):
                b, a = deltas[module]
                weight = weight.float() + b @ a
            yield name, weight
        self._within = set(deltas)  # all pairs were consumed


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


def _deltas(adapter: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Module -> (s B (out x r), A (r x in)), float32, with the module's scale s. ValueError for other adapters."""
    config = load_config(adapter)
    other = next((name for name in OTHER if config.get(name)), None)
    if other is not None or config.get("bias", "none") != "none":
        raise ValueError(f"{adapter}: {other or 'bias'} is set, which cannot be swapped in; use engine.adapters=lora")
    file = AdapterFile(adapter)
    if beside := file.whole + file.embeddings:
        raise ValueError(f"{adapter}: it holds {beside[0]}, which cannot be swapped in; use engine.adapters=lora")
    saved = {module: file.saved(module) for module in file.modules}
    return {module: (scale * b.float(), a.float()) for module, (b, a, scale) in saved.items()}
