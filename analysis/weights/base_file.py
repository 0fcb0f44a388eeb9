"""A base model's folder in safetensors, read one weight at a time: nothing is loaded but what is asked for."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.lfs_pointer import refuse_pointer
from models.module_names import alike

CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")  # their linear weights are in x out
TIED = "tied to the embeddings"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class BaseFile:
    """The weights of a Hugging Face model's folder, sharded or not. ValueError, one line: none there, or damaged."""

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
                raise ValueError(f"{self.folder / name} is no file; save the model again")
            if (self.folder / name).exists():
                refuse_pointer(self.folder / name)
            try:
                self._files[name] = safe_open(self.folder / name, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{self.folder / name}: damaged or missing ({error}); save the model again") from None
        return self._files[name]

    def has(self, module: str) -> bool:
        """Whether the module has a weight of its own: a head that is tied to the embeddings has none."""
        try:
            return bool(self._key(f"{module}.weight"))
        except ValueError:
            return False

    def shape(self, module: str) -> tuple[int, ...]:
        """The shape of a module's weight as it is stored, by the file's header. ValueError where it is not there."""
        key = self._key(f"{module}.weight")
        return tuple(self._open(self._places[key]).get_slice(key).get_shape())

    def lacks(self, module: str) -> str:
        """Why the module has no weight of its own here, in a few words."""
        tied = self.config.get("tie_word_embeddings", self.config.get("model_type") in CONV1D)
        heads = ("lm_head", "embed_out", "output")
        return TIED if tied and module.endswith(heads) else "no weight in the base"

    def is_turned(self, module: str, shape: tuple[int, int], told: Collection[bool]) -> bool:
        """Whether the weight is stored in x out. ``told``: what the adapters' configs say (fan_in_fan_out), which
        holds for one kind of module alone where a model has both; the model's own kind tells more."""
        conv1d, stored = self.config.get("model_type") in CONV1D, self.shape(module)
        if shape[0] != shape[1]:
            return (conv1d or any(told)) and stored == shape[::-1]
        return conv1d or all(told)

    def weight(self, module: str, shape: tuple[int, int], fan_in_fan_out: bool = False) -> Tensor:
        """A linear module's weight, out x in. ``fan_in_fan_out``: it is stored in x out (GPT-2's Conv1D).

        ValueError, one line: not there, quantised, or not of ``shape``, so that the adapter is of another base.
        """
        key = self._key(f"{module}.weight")
        try:
            found = self._open(self._places[key]).get_tensor(key)
        except SafetensorError as error:
            raise ValueError(f"{self.folder}: {key} cannot be read ({error}); save the model again") from None
        if found.element_size() < 2 or not found.is_floating_point():
            raise ValueError(f"{self.folder}: {key} is {found.dtype}, quantised; give the base in 16 or 32 bits")
        found = found.T if fan_in_fan_out else found
        if tuple(found.shape) != tuple(shape):
            raise ValueError(
                f"{self.folder}: {key} is {tuple(found.shape)}, the adapters' update {tuple(shape)} (out, in): "
                "is this their base?"
            )
        return found

    def _key(self, name: str) -> str:
        """The key as it is, or with a prefix more or less: files saved from a bare model lack "model." in front."""
        if name in self._places:
            return name
        found = alike(name, self._places)
        if len(found) != 1:
            raise ValueError(f"{self.folder}: has no weight {name}: is this the adapters' base?")
        return found[0]


def _config(path: Path) -> dict[str, Any]:
    """The model's config.json; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
