"""A PEFT LoRA folder read as low-rank factors, one pair a module, with the scale folded in.

A delta is ``dW = b @ a`` with ``b`` out x r and ``a`` r x in; it is never multiplied out. Source: Hu 2021
(2106.09685), section 4.1 (scale alpha / r); Kalajdzievski 2023 (2312.03732) for rsLoRA (alpha / sqrt(r)).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
LARGEST_CONFIG = 10_000_000  # bytes
LARGEST = 1e30  # of a setting, or of an update: its square is still a number
LONGEST_PATTERN = 300  # characters
# Initialisations that also change the base weight, so that b @ a is not the distance from the base.
BASE_CHANGING_INITS = ("pissa", "corda", "olora", "loftq", "lora_ga", "mica")
# Config fields that make the update something other than a scaled b @ a on a linear map.
UNSUPPORTED_FIELDS = (
    "use_dora", "lora_bias", "use_qalora", "use_bdlora", "alora_invocation_tokens", "layer_replication",
    "target_parameters", "trainable_token_indices", "velora_config", "monteclora_config", "kasa_config",
    "arrow_config",
)  # fmt: skip


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

    ``modules`` are the adapted modules in natural order, ``base`` the base's name by the config. Raises ValueError, one
    line: no adapter, a pickle, a damaged file, an unsupported variant.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = Path(path)
        self.config = _read_config(self.folder)
        self._tensors = _open(self.folder / WEIGHTS)
        self._keys = _paired_keys(self.folder / WEIGHTS, sorted(self._tensors.keys()))
        self.modules = sorted(self._keys, key=natural_key)
        self.base: str | None = self.config.get("base_model_name_or_path")

    def shape(self, module: str) -> tuple[int, int]:
        """(out, in) of a module's delta, by the file's header."""
        return self._sizes(module)[0][0], self._sizes(module)[1][1]

    def _sizes(self, module: str) -> list[list[int]]:
        """The shapes of B and A by the header."""
        shapes = [list(self._tensors.get_slice(key).get_shape()) for key in self._keys[module]]
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
        if module not in self._keys:
            raise ValueError(f"{self.folder / WEIGHTS}: no LoRA factors for {module}; it has {len(self._keys)} others")
        try:
            b, a = (self._tensors.get_tensor(key) for key in self._keys[module])
        except (SafetensorError, OSError) as error:
            raise _damaged(self.folder / WEIGHTS, error) from None
        return _scaled(self.folder, module, b, a, self.config, dtype)


def load_adapter(path: str | Path, name: str | None = None, dtype: torch.dtype = torch.float64) -> Adapter:
    """Read a whole PEFT LoRA folder, modules in the natural order of their names; errors as of ``AdapterFile``."""
    file = AdapterFile(path)
    factors = {module: file.factors(module, dtype) for module in file.modules}
    return Adapter(name or file.folder.name, factors, file.base)


def module_names(path: str | Path) -> list[str]:
    """The adapted modules of a PEFT LoRA folder in natural order, read from the file's header alone."""
    return AdapterFile(path).modules


def shared_modules(names: Sequence[Collection[str]]) -> list[str]:
    """The modules that every adapter has, in natural order; ValueError if there is none."""
    shared = set.intersection(*(set(modules) for modules in names)) if names else set()
    if not shared:
        raise ValueError("the adapters share no module, so nothing can be compared: check their targets and base")
    return sorted(shared, key=natural_key)


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


def interpolate(f: Factors, g: Factors, weight: float) -> Factors:
    """``weight * dW_f + (1 - weight) * dW_g``, exactly, as factors of rank r_f + r_g."""
    return Factors(torch.cat([weight * f.b, (1 - weight) * g.b], dim=1), torch.cat([f.a, g.a], dim=0))


def _read_config(folder: Path) -> dict:
    if not (folder / WEIGHTS).is_file():
        if (folder / "adapter_model.bin").is_file():
            raise ValueError(
                f"{folder}: adapter_model.bin is a pickle and is not opened; convert it where you trust it: "
                'safetensors.torch.save_file(torch.load("adapter_model.bin", weights_only=True), "' + WEIGHTS + '")'
            )
        raise ValueError(f"{folder}: no {WEIGHTS}; give the folder that PEFT's save_pretrained wrote")
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder}: no {CONFIG}, so the scale alpha / r is unknown; copy it beside the weights")
    if path.stat().st_size > LARGEST_CONFIG:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are no adapter's config; save the adapter again")
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); save the adapter again") from None
    _check_config(folder / CONFIG, config)
    return config


def _check_config(path: Path, config: dict) -> None:
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ValueError(f"{path}: peft_type is {kind!r}, only LORA is measured")
    for field in UNSUPPORTED_FIELDS:
        if config.get(field):
            raise ValueError(f"{path}: {field} is set, and only plain LoRA (scale * b @ a) is measured")
    if config.get("modules_to_save"):
        raise ValueError(f"{path}: modules_to_save holds whole weights, which are no low-rank delta; train without it")
    if config.get("bias", "none") != "none":
        raise ValueError(
            f"{path}: bias is {config['bias']!r}: trained biases are no low-rank delta; train with bias none"
        )
    base = config.get("base_model_name_or_path")
    if base is not None and not (isinstance(base, str) and base.isprintable()):
        raise ValueError(f"{path}: base_model_name_or_path is {base!r}, no name; write the base's name there")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(BASE_CHANGING_INITS):
        raise ValueError(
            f"{path}: init_lora_weights {init!r} also changed the base; save again with "
            "path_initial_model_for_weight_conversion to get a plain LoRA"
        )
    for field in ("r", "lora_alpha"):
        if not _is_number(config.get(field)):
            raise ValueError(f"{path}: {field} is {config.get(field)!r}, a number is needed")
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict) or not all(_is_number(value) for value in patterns.values()):
            raise ValueError(f"{path}: {field} is no mapping of patterns to numbers")
        # Such a pattern can take longer than anyone waits, and holds all threads meanwhile.
        slow = next((p for p in patterns if len(p) > LONGEST_PATTERN or re.search(r"[*+}][^()]*\)+[*+{]", p)), None)
        if slow is not None:
            raise ValueError(f"{path}: {field}: {slow[:80]!r} repeats what repeats, or is too long; name the modules")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


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
        if not match:
            raise ValueError(f"{path}: tensor {key} is no LoRA factor of a linear module")
        halves = found.setdefault(match[1].removeprefix(PREFIX), {})
        if match[2] in halves:
            raise ValueError(
                f"{path}: {key} and {halves[match[2]]} are one and the same factor; save the adapter again"
            )
        halves[match[2]] = key
    if not found:
        raise ValueError(f"{path}: holds no LoRA factors")
    for module, halves in found.items():
        if len(halves) != 2:
            raise ValueError(f"{path}: module {module} has only lora_{min(halves)}")
    return {module: (halves["B"], halves["A"]) for module, halves in found.items()}


def _scaled(folder: Path, module: str, b: Tensor, a: Tensor, config: dict, dtype: torch.dtype) -> Factors:
    if not (b.is_floating_point() and a.is_floating_point()):
        raise ValueError(f"{folder / WEIGHTS}: module {module}: factors of {b.dtype} and {a.dtype} are no real numbers")
    if b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ValueError(
            f"{folder / WEIGHTS}: module {module}: lora_B {tuple(b.shape)} and lora_A {tuple(a.shape)} "
            "are not out x r and r x in"
        )
    try:
        rank = _by_pattern(config.get("rank_pattern"), module, config["r"])
        alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG}: rank_pattern or alpha_pattern is no pattern ({error})") from None
    if rank != a.shape[0]:
        raise ValueError(f"{folder / CONFIG}: module {module}: rank {rank} by the config, {a.shape[0]} by the weights")
    if rank < 1:
        raise ValueError(f"{folder / WEIGHTS}: module {module}: rank 0 holds no update; save the adapter again")
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    b, a = b.double() * scale, a.double()
    if not (torch.isfinite(b).all() and torch.isfinite(a).all()):
        raise ValueError(f"{folder / WEIGHTS}: module {module}: NaN or inf in its factors")
    if float(b.abs().max()) * float(a.abs().max()) > LARGEST:
        raise ValueError(f"{folder / WEIGHTS}: module {module}: its update is beyond {LARGEST:g}; was it trained?")
    return Factors(b.to(dtype), a.to(dtype))


def _by_pattern(patterns: dict[str, float] | None, module: str, default: float) -> float:
    """The first pattern that matches the module's name or its end, as PEFT's get_pattern_key does."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
