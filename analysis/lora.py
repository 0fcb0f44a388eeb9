"""A PEFT LoRA folder read as low-rank factors, one pair a module, with the scale folded in.

A delta is ``dW = b @ a`` with ``b`` out x r and ``a`` r x in; it is never multiplied out. Source: Hu 2021
(2106.09685), section 4.1 (scale alpha / r); Kalajdzievski 2023 (2312.03732) for rsLoRA (alpha / sqrt(r)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from analysis.adapter_config import CONFIG, LARGEST, WEIGHTS, read_config, scale_of

SMALLEST = 1e-60  # of a factor, or of an update, that is not zero: squares of squares are still above zero
PREFIXES = ("base_model.model.", "module.")  # PEFT's, DistributedDataParallel's
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
BASES_OWN = re.compile(r"\.(?:base_layer|original_module)\.")  # what PEFT saves of a base beside its factors


@dataclass(frozen=True)
class Factors:
    """One module's delta ``b @ a``: b is out x r with the scale folded in, a is r x in; same dtype."""

    b: Tensor
    a: Tensor


@dataclass(frozen=True)
class Adapter:
    """Factors by normalised module name ("model.layers.0.self_attn.q_proj"), and the base it was made for."""

    name: str
    modules: dict[str, Factors]
    base: str | None = None


class AdapterFile:
    """A PEFT LoRA folder, opened: its config and its header are checked, and a module is read when it is asked for.

    ``modules`` are the adapted modules in natural order, ``base`` the base's name by the config, ``whole`` the weights
    that were saved whole beside the factors (a trained head, embeddings), ``embeddings`` the embeddings with factors
    of their own: neither is part of what is measured. Raises ValueError, one line: no adapter, a pickle, a damaged
    file, an unsupported variant.
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
        """What the file calls a module, with one part in front more or less; None where that is none, or several."""
        if module in self._keys:
            return module
        found = _inner(module, self._keys)
        return found[0] if len(found) == 1 else None

    def beside_factors(self) -> list[str]:
        """What else was trained or saved and is not part of the delta, a sentence each."""
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
        """(out, in) of a module's delta, by the file's header."""
        return self._sizes(module)[0][0], self._sizes(module)[1][1]

    def _sizes(self, module: str) -> list[list[int]]:
        """The shapes of B and A by the header."""
        shapes = [list(self._tensors.get_slice(key).get_shape()) for key in self._keys[self._name(module)]]
        if any(len(shape) != 2 or 0 in shape for shape in shapes):
            told = " and ".join(str(tuple(shape)) for shape in shapes)
            raise ValueError(f"{self.folder / WEIGHTS}: module {module}: lora_B and lora_A {told} are no matrices")
        return shapes

    def rank(self, module: str) -> int:
        """Rows of a module's A, by the file's header."""
        return self._sizes(module)[1][0]

    def fits(self, other: AdapterFile, module: str) -> bool:
        """Whether both have an A of one shape at the module."""
        return (self.rank(module), self.shape(module)[1]) == (other.rank(module), other.shape(module)[1])

    def factors(self, module: str, dtype: torch.dtype = torch.float64) -> Factors:
        """One module's factors, the scale (alpha / r, or alpha / sqrt(r) with rsLoRA, with rank and alpha patterns)
        folded into b in float64 before the cast to ``dtype``. ``fan_in_fan_out`` only tells how the base stores its
        weight: the factors are those of the linear map either way.

        Raises ValueError, one line: a module that is not there, a config that disagrees with the weights, NaN or inf.
        """
        own = self._name(module)
        try:
            b, a = (self._tensors.get_tensor(key) for key in self._keys[own])
        except (SafetensorError, OSError) as error:
            raise _damaged(self.folder / WEIGHTS, error) from None
        return _scaled(self.folder, own, b, a, self.config, dtype)


def load_adapter(path: str | Path, name: str | None = None, dtype: torch.dtype = torch.float64) -> Adapter:
    """Read a whole PEFT LoRA folder, modules in the natural order of their names; errors as of ``AdapterFile``."""
    file = AdapterFile(path)
    factors = {module: file.factors(module, dtype) for module in file.modules}
    return Adapter(name or file.folder.name, factors, file.base)


def module_names(path: str | Path) -> list[str]:
    """The adapted modules of a PEFT LoRA folder in natural order, read from the file's header alone."""
    return AdapterFile(path).modules


def plain_name(key: str) -> str:
    """A tensor's or module's name without what PEFT, torch.compile and data parallel wrappers put into it."""
    name = WRAPPERS.sub("", key)
    while (prefix := next((p for p in PREFIXES if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def alike(name: str, names: Iterable[str]) -> list[str]:
    """Those of the names that are ``name`` with a prefix more or less: "layers.0.q" and "language.model.layers.0.q"."""
    return [other for other in names if other.endswith(f".{name}") or name.endswith(f".{other}")]


def _inner(name: str, names: Iterable[str]) -> list[str]:
    """Those of the names that have one part more or less in front, as a model's ("model.layers.0.q") and its inner
    model's ("layers.0.q") have."""
    return [other for other in names if other.partition(".")[2] == name or name.partition(".")[2] == other]


def shared_modules(names: Sequence[Collection[str]]) -> list[str]:
    """The modules that every adapter has, in natural order; ValueError if there is none.

    Adapters that were saved off a model and off its inner one (``model.`` in front or not) share what is alike but for
    a prefix, under the longer names.
    """
    shared = set.intersection(*(set(modules) for modules in names)) if names else set()
    if not shared and names and all(names):
        longest = max(names, key=lambda modules: min(module.count(".") for module in modules))
        shared = {module for module in longest if all(_one_to_one(module, longest, other) for other in names)}
    if not shared:
        raise ValueError("the adapters share no module, so nothing can be compared: check their targets and base")
    return sorted(shared, key=natural_key)


def _one_to_one(module: str, own: Collection[str], others: Collection[str]) -> bool:
    """Whether the others have the module, or one that is alike to it and to no other of its own."""
    found = _inner(module, others)
    return module in others or (len(found) == 1 and len(_inner(found[0], own)) == 1)


def natural_key(module: str) -> list[tuple[int, int | str]]:
    """A sort key by which layer 2 comes before layer 10."""
    parts = re.split(r"([0-9]{1,18})", module)
    return [(0, int(part)) if part.isdecimal() and part.isascii() else (1, part) for part in parts if part]


def layer_of(module: str) -> int | None:
    """The layer number in a module's name ("model.layers.3.self_attn.q_proj" -> 3), or None."""
    found = re.search(r"(?:^|\.)([0-9]{1,9})(?:\.|$)", module)
    return int(found.group(1)) if found else None


def projection_of(module: str) -> str:
    """The last part of a module's name ("model.layers.3.self_attn.q_proj" -> "q_proj")."""
    return module.rpartition(".")[2]


def places(modules: Collection[str]) -> dict[str, dict[str, int | str | None]]:
    """Each module's ``layer`` (counted from 0, as in its name; None outside of all layers) and ``projection``.

    Where a model has several stacks of layers, an encoder and a decoder or a vision tower beside a text model,
    ``stack`` tells which: layer 0 of one is not layer 0 of the other. It is the first part of the path in which the
    stacks differ.
    """
    found: dict[str, dict[str, int | str | None]]
    found = {name: {"layer": layer_of(name), "projection": projection_of(name)} for name in modules}
    paths = {name: tuple(_path_to_layers(name)) for name in modules if found[name]["layer"] is not None}
    several = sorted(set(paths.values()))
    if len(several) < 2:
        return found
    lead = next(i for i, parts in enumerate(zip_longest(*several)) if len(set(parts)) > 1)
    first = [path[lead : lead + 1] or path for path in several]
    short = {path: part if first.count(part) == 1 else path[lead:] for path, part in zip(several, first, strict=True)}
    for name, place in found.items():
        place["stack"] = ".".join(short[paths[name]]) if name in paths else None
    return found


def _path_to_layers(module: str) -> list[str]:
    """The parts of a module's name before its layer's number."""
    parts = module.split(".")
    return parts[: next(i for i, part in enumerate(parts) if part.isdecimal() and part.isascii())]


def interpolate(f: Factors, g: Factors, weight: float) -> Factors:
    """``weight * dW_f + (1 - weight) * dW_g``, exactly, as factors of rank r_f + r_g."""
    return Factors(torch.cat([weight * f.b, (1 - weight) * g.b], dim=1), torch.cat([f.a, g.a], dim=0))


def _open(path: Path) -> safe_open:
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: may not be read; ask its owner for the right to")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: damaged or truncated safetensors ({error}); copy or save it again")


def _paired_keys(path: Path, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Module name -> (key of b, key of a); ValueError for any tensor that is not half of such a pair."""
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", key)
        if not match or not key.isprintable():
            raise ValueError(
                f"{path}: tensor {key if key.isprintable() else ascii(key)} is no LoRA factor of a linear module"
            )
        halves = found.setdefault(plain_name(match[1]), {})
        if match[2] in halves:
            raise ValueError(
                f"{path}: {key} and {halves[match[2]]} are one and the same factor; save the adapter again"
            )
        halves[match[2]] = key
    if not found:
        raise ValueError(f"{path}: holds no LoRA factors of linear modules")
    for module, halves in found.items():
        if len(halves) != 2:
            raise ValueError(f"{path}: module {module} has only lora_{min(halves)}")
    return {module: (halves["B"], halves["A"]) for module, halves in found.items()}


def _scaled(folder: Path, module: str, b: Tensor, a: Tensor, config: dict, dtype: torch.dtype) -> Factors:
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
    b, a = b.double(), a.double()
    if not (torch.isfinite(b).all() and torch.isfinite(a).all()):
        raise ValueError(f"{where}: NaN or inf in its factors")
    b = b * scale
    most_b, most_a = float(b.abs().max()), float(a.abs().max())
    sizes = (most_b, most_a, most_b * most_a)
    if max(sizes) > LARGEST:
        raise ValueError(f"{where}: its update is beyond {LARGEST:g}, or a factor is; was it trained?")
    if most_b and most_a and min(sizes) < SMALLEST:
        raise ValueError(f"{where}: its update is below {SMALLEST:g}, or a factor is; was it trained?")
    return Factors(b.to(dtype), a.to(dtype))
