"""Reads single weights from a base model's safetensors folder."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.lfs_pointer import refuse_pointer
from models.module_names import matching_names

CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")  # their linear weights are in x out
TIED = "tied to the embeddings"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class BaseFile:
    """The weights of a Hugging Face model folder, sharded or not. One-line ValueError if missing or damaged."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: dict[str, safe_open] = {}
        index = self.folder / INDEX
        self.config = _config(self.folder / "config.json")
        if index.is_file():
            refuse_pointer(index)
            try:
                self._places: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
                if any(name != Path(name).name for name in self._places.values()):
                    raise ValueError("it names files outside the folder")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(f"{index}: no map of weights ({error}); save the model again") from None
        elif (self.folder / WEIGHTS).is_file():
            self._places = dict.fromkeys(self._open(WEIGHTS).keys(), WEIGHTS)
        else:
            raise ValueError(f"{self.folder}: no {WEIGHTS}; name the folder that the model's save_pretrained wrote")

    def _open(self, name: str) -> safe_open:
        if name not in self._files:
            if (self.folder / name).exists() and not (self.folder / name).is_file():
                raise ValueError(f"{self.folder / name} is not a file; save the model again")
            if (self.folder / name).exists():
                refuse_pointer(self.folder / name)
            try:
                self._files[name] = safe_open(self.folder / name, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{self.folder / name}: damaged or missing ({error}); save the model again") from None
        return self._files[name]

    def has(self, module: str) -> bool:
        """Whether the module has a weight of its own; a head that is tied to the embeddings has none."""
        try:
            return bool(self._key(f"{module}.weight"))
        except ValueError:
            return False

    def shape(self, module: str) -> tuple[int, ...]:
        """The stored shape of a module's weight, from the file's header. ValueError if it is missing."""
        key = self._key(f"{module}.weight")
        return tuple(self._open(self._places[key]).get_slice(key).get_shape())

    def lacks(self, module: str) -> str:
        """Why the module has no weight of its own here, in a few words."""
        tied = self.config.get("tie_word_embeddings", self.config.get("model_type") in CONV1D)
        heads = ("lm_head", "embed_out", "output")
        return TIED if tied and module.endswith(heads) else "no weight in the base"

    def is_turned(self, module: str, shape: tuple[int, int], fan_in_fan_out: Collection[bool]) -> bool:
        """Whether the weight is stored in x out. ``fan_in_fan_out``: the adapters' settings, which hold for one kind of
        module only if a model has both; the model type and the stored shape decide first."""
        conv1d, stored = self.config.get("model_type") in CONV1D, self.shape(module)
        if shape[0] != shape[1]:
            return (conv1d or any(fan_in_fan_out)) and stored == shape[::-1]
        return conv1d or all(fan_in_fan_out)

    def weight(self, module: str, shape: tuple[int, int], fan_in_fan_out: bool = False) -> Tensor:
        """A linear module's weight, out x in. ``fan_in_fan_out``: it is stored in x out (GPT-2's Conv1D).

        One-line ValueError if it is missing, quantised, or not of ``shape`` (the adapter is of another base).
        """
        key = self._key(f"{module}.weight")
        try:
            tensor = self._open(self._places[key]).get_tensor(key)
        except SafetensorError as error:
            raise ValueError(f"{self.folder}: {key} cannot be read ({error}); save the model again") from None
        if tensor.element_size() < 2 or not tensor.is_floating_point():
            raise ValueError(f"{self.folder}: {key} is {tensor.dtype}, quantised; give the base in 16 or 32 bits")
        tensor = tensor.T if fan_in_fan_out else tensor
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"{self.folder}: {key} is {tuple(tensor.shape)}, the adapters' update {tuple(shape)} (out, in): "
                "is this their base?"
            )
        return tensor

    def _key(self, name: str) -> str:
        """The stored key for ``name``, which may differ by a prefix: files saved from an inner model lack "model."."""
        if name in self._places:
            return name
        matches = matching_names(name, self._places)
        if len(matches) != 1:
            raise ValueError(f"{self.folder}: has no weight {name}: is this the adapters' base?")
        return matches[0]


def _config(path: Path) -> dict[str, Any]:
    """The model's config.json; empty if it is missing or cannot be read."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
