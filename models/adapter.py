"""Reads a PEFT LoRA folder as low-rank factors, one pair per module, with the scale folded in.

A delta is ``dW = b @ a`` with ``b`` out x r and ``a`` r x in; it is never made dense. Source: Hu 2021
(2106.09685), section 4.1 (scale alpha / r); Kalajdzievski 2023 (2312.03732) for rsLoRA (alpha / sqrt(r)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.adapter_config import CONFIG, LARGEST, WEIGHTS, read_config, scale_of
from models.module_names import inner_names, natural_key, plain_name

Start = Literal["a", "b"]  # the factor that was drawn at random before training; the other one began at zero
SMALLEST = 1e-60  # least size of a nonzero factor or update: its fourth power is still above zero
BASES_OWN = re.compile(r"\.(?:base_layer|original_module)\.")  # base weights that PEFT saves beside the factors


@dataclass(frozen=True)
class Factors:
    """One module's delta ``b @ a``: b is out x r with the scale folded in, a is r x in; same dtype."""

    b: Tensor
    a: Tensor

    @property
    def transposed(self) -> Factors:
        """Those of the transposed delta: what holds for its input side holds for the output side of this one."""
        return Factors(self.a.T, self.b.T)


class AdapterFile:
    """An open PEFT LoRA folder: config and header are checked at once, a module's tensors are read on demand.

    ``modules`` are the adapted modules in natural order, ``base`` the base's name in the config. ``whole`` are weights
    saved in full beside the factors (a trained head, embeddings), ``embeddings`` the embeddings with LoRA factors:
    neither is measured. Raises a one-line ValueError for a folder without an adapter, a pickle, a damaged file or an
    unsupported variant.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = Path(path)
        self.config: dict[str, Any] = read_config(self.folder)
        self._tensors = _open(self.folder / WEIGHTS)
        keys = sorted(self._tensors.keys())
        self.embeddings = sorted({plain_name(k.split(".lora_embedding_")[0]) for k in keys if ".lora_embedding_" in k})
        self.whole = [plain_name(k) for k in keys if "lora_" not in k and not BASES_OWN.search(k)]
        factors = [key for key in keys if "lora_" in key and ".lora_embedding_" not in key]
        self._keys = _paired_keys(self.folder / WEIGHTS, factors)
        self.modules = sorted(self._keys, key=natural_key)
        self.base: str | None = self.config.get("base_model_name_or_path")

    def own_name(self, module: str) -> str | None:
        """The file's name for ``module``, which may have one leading part more or less; None if no or several match."""
        if module in self._keys:
            return module
        matches = inner_names(module, self._keys)
        return matches[0] if len(matches) == 1 else None

    def beside_factors(self) -> list[str]:
        """A sentence for each kind of trained or saved weights that is not part of the delta."""
        lines = []
        if self.whole:
            few = ", ".join(self.whole[:3]) + (", ..." if len(self.whole) > 3 else "")
            lines.append(f"{few} saved whole beside the LoRA: left out, its LoRA part alone is compared.")
        elif self.config.get("modules_to_save"):
            lines.append("it has modules_to_save: left out, its LoRA part alone is compared.")
        if self.embeddings:
            lines.append(f"LoRA on the embeddings {', '.join(self.embeddings)} is left out.")
        return lines

    def _name(self, module: str) -> str:
        own = self.own_name(module)
        if own is None:
            raise ValueError(f"{self.folder / WEIGHTS}: no LoRA factors for {module}; it has {len(self._keys)} others")
        return own

    def shape(self, module: str) -> tuple[int, int]:
        """(out, in) of a module's delta, from the file's header."""
        return self._sizes(module)[0][0], self._sizes(module)[1][1]

    def _sizes(self, module: str) -> list[list[int]]:
        """The shapes of B and A from the header."""
        shapes = [list(self._tensors.get_slice(key).get_shape()) for key in self._keys[self._name(module)]]
        if any(len(shape) != 2 or 0 in shape for shape in shapes):
            pair = " and ".join(str(tuple(shape)) for shape in shapes)
            raise ValueError(f"{self.folder / WEIGHTS}: module {module}: lora_B and lora_A {pair} are no matrices")
        return shapes

    def rank(self, module: str) -> int:
        """Rows of a module's A, from the file's header."""
        return self._sizes(module)[1][0]

    def fits(self, other: AdapterFile, module: str, start: Start = "a") -> bool:
        """Whether the two adapters' A, or B, have the same shape at the module."""
        side = 1 if start == "a" else 0
        return (self.rank(module), self.shape(module)[side]) == (other.rank(module), other.shape(module)[side])

    def scale(self, module: str) -> float:
        """The scale of a module's delta, from the config: alpha / r, or alpha / sqrt(r) with rsLoRA."""
        return scale_of(self.folder / CONFIG, self.config, self._name(module))[1]

    def saved(self, module: str) -> tuple[Tensor, Tensor, float]:
        """One module's (B, A, scale): the factors as stored, and alpha / r, or alpha / sqrt(r) with rsLoRA, after rank
        and alpha patterns. ``fan_in_fan_out`` is ignored: it says how the base stores its weight, and the factors are
        those of the linear map either way.

        Raises a one-line ValueError for a missing module, a config that disagrees with the weights, NaN or inf.
        """
        own = self._name(module)
        try:
            b, a = (self._tensors.get_tensor(key) for key in self._keys[own])
        except (SafetensorError, OSError) as error:
            raise _damaged(self.folder / WEIGHTS, error) from None
        return b, a, _checked_scale(self.folder, own, b, a, self.config)

    def factors(self, module: str, dtype: torch.dtype = torch.float64) -> Factors:
        """One module's factors, the scale folded into b in float64 before the cast to ``dtype``; errors as in
        ``saved``."""
        b, a, scale = self.saved(module)
        return Factors((b.double() * scale).to(dtype), a.double().to(dtype))


def load_factors(path: str | Path, dtype: torch.dtype = torch.float64) -> dict[str, Factors]:
    """All factors of a PEFT LoRA folder, modules in natural order; errors as in ``AdapterFile``."""
    file = AdapterFile(path)
    return {module: file.factors(module, dtype) for module in file.modules}


def _open(path: Path) -> safe_open:
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: permission denied; ask its owner for read access")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: damaged or truncated safetensors ({error}); copy or save it again")


def _paired_keys(path: Path, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Module name -> (key of b, key of a); ValueError for a tensor that is not part of such a pair."""
    pairs: dict[str, dict[str, str]] = {}
    for key in keys:
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", key)
        if not match or not key.isprintable():
            raise ValueError(
                f"{path}: tensor {key if key.isprintable() else ascii(key)} is no LoRA factor of a linear module"
            )
        halves = pairs.setdefault(plain_name(match[1]), {})
        if match[2] in halves:
            raise ValueError(f"{path}: {key} and {halves[match[2]]} are the same factor; save the adapter again")
        halves[match[2]] = key
    if not pairs:
        raise ValueError(f"{path}: holds no LoRA factors of linear modules")
    for module, halves in pairs.items():
        if len(halves) != 2:
            raise ValueError(f"{path}: module {module} has only lora_{min(halves)}")
    return {module: (halves["B"], halves["A"]) for module, halves in pairs.items()}


def _checked_scale(folder: Path, module: str, b: Tensor, a: Tensor, config: dict[str, Any]) -> float:
    """The scale from the config; ValueError for factors whose update cannot be measured."""
    where = f"{folder / WEIGHTS}: module {module}"
    if not (b.is_floating_point() and a.is_floating_point()):
        raise ValueError(f"{where}: factors of {b.dtype} and {a.dtype} are no real numbers")
    if b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ValueError(f"{where}: lora_B {tuple(b.shape)} and lora_A {tuple(a.shape)} are not out x r and r x in")
    rank, scale = scale_of(folder / CONFIG, config, module)
    if rank != a.shape[0]:
        raise ValueError(f"{folder / CONFIG}: module {module}: rank {rank} by the config, {a.shape[0]} by the weights")
    if rank < 1:
        raise ValueError(f"{where}: rank 0 holds no update; save the adapter again")
    if not (torch.isfinite(b).all() and torch.isfinite(a).all()):
        raise ValueError(f"{where}: NaN or inf in its factors")
    most_b, most_a = abs(float(b.abs().max()) * scale), float(a.abs().max())
    sizes = (most_b, most_a, most_b * most_a)
    if max(sizes) > LARGEST:
        raise ValueError(f"{where}: its update is beyond {LARGEST:g}, or a factor is; was it trained?")
    if most_b and most_a and min(sizes) < SMALLEST:
        raise ValueError(f"{where}: its update is below {SMALLEST:g}, or a factor is; was it trained?")
    return scale
