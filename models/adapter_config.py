"""Reads and checks a PEFT LoRA folder's config, and computes the scale of each module. Imports no torch.

The meaning of the fields follows PEFT's code (``peft.tuners.lora``, ``peft.utils.other.get_pattern_key``).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from models.lfs_pointer import refuse_pointer

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
LARGEST_CONFIG = 10_000_000  # bytes
LARGEST = 1e30  # largest setting, factor or update: its fourth power is still finite
LONGEST_PATTERN = 2000  # characters of a pattern that is more than a name
PATIENCE = 5.0  # seconds for all matches of one config's patterns, which normally take microseconds each
# Initialisations that also change the base weight, so that b @ a is not the difference to the base. The others (True,
# False, gaussian, orthogonal, eva, mica) do not change it.
BASE_CHANGING_INITS = ("pissa", "corda", "olora", "loftq", "lora_ga")
# Config fields that make the update something other than a scaled b @ a on a linear map.
UNSUPPORTED_FIELDS = (
    "use_dora", "lora_bias", "use_qalora", "use_bdlora", "alora_invocation_tokens", "layer_replication",
    "target_parameters", "velora_config", "monteclora_config", "kasa_config", "arrow_config",
)  # fmt: skip
_NAME = r"\^?(?:[\w-]|\\?\.)*\$?"  # a pattern that is only a name; its dots match any character


def read_config(folder: Path) -> dict[str, Any]:
    """The checked config of a PEFT LoRA folder with safetensors weights; a one-line ValueError says what is wrong."""
    if not (folder / WEIGHTS).is_file():
        raise ValueError(_no_weights(folder))
    refuse_pointer(folder / WEIGHTS)
    config = load_config(folder)
    _check(folder / CONFIG, config)
    return config


def load_config(folder: Path) -> Any:
    """The parsed config of any PEFT folder. One-line ValueError if it is missing or not JSON."""
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(
            f"{folder}: holds no {CONFIG}, so the scale alpha / r is unknown; copy it beside the weights, or give the "
            "folder of a PEFT adapter"
        )
    if path.stat().st_size > LARGEST_CONFIG:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are no adapter's config; save the adapter again")
    refuse_pointer(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); save the adapter again") from None


def _no_weights(folder: Path) -> str:
    if (folder / "adapter_model.bin").is_file():
        return (
            f"{folder}: adapter_model.bin is a pickle and is not opened; convert it where you trust it: "
            f'safetensors.torch.save_file(torch.load("adapter_model.bin", weights_only=True), "{WEIGHTS}")'
        )
    parts = sorted(path.name for path in folder.glob("adapter_model-*.safetensors"))
    if parts:
        return f"{folder}: the weights are in {len(parts)} parts ({parts[0]}); save them as one {WEIGHTS}"
    return f"{folder}: no {WEIGHTS}; give the folder that PEFT's save_pretrained wrote"


def _check(path: Path, config: Any) -> None:
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ValueError(f"{path}: peft_type is {kind!r}, only LORA is measured")
    for field in UNSUPPORTED_FIELDS:
        if config.get(field):
            raise ValueError(f"{path}: {field} is set, and only plain LoRA (scale * b @ a) is measured")
    if config.get("bias", "none") != "none":
        raise ValueError(
            f"{path}: bias is {config['bias']!r}: trained biases are not a low-rank delta; train with bias none"
        )
    base = config.get("base_model_name_or_path")
    if base is not None and not (isinstance(base, str) and base.isprintable()):
        raise ValueError(f"{path}: base_model_name_or_path is {base!r}, no name; write the base's name there")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(BASE_CHANGING_INITS):
        mend = "compare it on LoftQ's base" if init.lower() == "loftq" else "to get a plain LoRA save it again with"
        more = "" if init.lower() == "loftq" else " path_initial_model_for_weight_conversion"
        raise ValueError(f"{path}: init_lora_weights {init!r} also changed the base; {mend}{more}")
    for field in ("r", "lora_alpha"):
        if not _is_number(config.get(field)):
            raise ValueError(f"{path}: {field} is {config.get(field)!r}, a number is needed")
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict) or not all(_is_number(value) for value in patterns.values()):
            raise ValueError(f"{path}: {field} is no mapping of patterns to numbers")
        _table(tuple(patterns.items()), f"{path}: {field}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def scale_of(path: Path, config: Mapping[str, Any], module: str) -> tuple[float, float]:
    """(rank, scale) of a module: alpha / rank, or alpha / sqrt(rank) with rsLoRA; a rank below 1 has scale 0.
    One-line ValueError if a pattern takes too long to match."""
    numbers = []
    for field, default in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        table = _table(tuple((config.get(field) or {}).items()), f"{path}: {field}")
        value = table.first(module)
        numbers.append(config[default] if value is None else value)
    rank, alpha = numbers
    if rank < 1:
        return rank, 0.0
    return rank, alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def largest_rank(config: Mapping[str, Any]) -> int:
    """The largest rank of any module."""
    return max([config["r"], *(config.get("rank_pattern") or {}).values()])


@lru_cache(maxsize=64)
def _table(patterns: tuple[tuple[str, float], ...], where: str) -> _Patterns:
    return _Patterns(patterns, where)


class _Patterns:
    """Finds the first pattern that matches a module's name or its end: ``re.match(rf"(.*\\.)?({pattern})$", name)``.

    Patterns that are names, of which PEFT and EVA write one per module, are looked up by length and positions of their
    dots. Others are matched by ``regex`` with a timeout: Python's ``re`` has none and cannot be interrupted.
    """

    def __init__(self, patterns: tuple[tuple[str, float], ...], where: str) -> None:
        self._where, self._left = where, PATIENCE
        self._values = [value for _, value in patterns]
        # length -> (anchored at the name's start, places of the wild dots) -> name without these -> index
        self._names: dict[int, dict[tuple[bool, tuple[int, ...]], dict[str, int]]] = {}
        self._others: list[tuple[int, Any, str]] = []
        self._known: dict[str, float | None] = {}
        for index, (pattern, _) in enumerate(patterns):
            if re.fullmatch(_NAME, pattern):
                self._add_name(index, pattern)
            else:
                self._others.append((index, self._compiled(pattern), pattern))

    def _add_name(self, index: int, pattern: str) -> None:
        anchored = pattern.startswith("^")
        characters = re.findall(r"\\?.", pattern.removeprefix("^").removesuffix("$"))
        wild = tuple(at for at, character in enumerate(characters) if character == ".")
        name = "".join("" if character == "." else character[-1] for character in characters)
        self._names.setdefault(len(characters), {}).setdefault((anchored, wild), {}).setdefault(name, index)

    def _compiled(self, pattern: str) -> Any:
        if len(pattern) > LONGEST_PATTERN or re.search(r"[*+}][^()]*\)+[*+{]", pattern):
            raise ValueError(f"{self._where}: {pattern[:80]!r} repeats what repeats, or is too long; name the modules")
        if re.search(r"\{(?![0-9]*,?[0-9]*\})|\[\[", pattern):  # where regex and re differ
            raise ValueError(f"{self._where}: {pattern[:80]!r} has a brace that repeats nothing; name the modules")
        try:
            re.compile(rf"(.*\.)?({pattern})$")
            return regex.compile(rf"(.*\.)?({pattern})$")
        except (re.error, regex.error, OverflowError, RecursionError, ValueError) as error:
            raise ValueError(f"{self._where} {pattern[:80]!r} is no pattern ({error})") from None

    def first(self, module: str) -> float | None:
        """The value of the first pattern that matches, or None; ValueError if matching takes too long."""
        if module not in self._known:
            best = min(self._named(module), default=len(self._values))
            for index, compiled, pattern in self._others:
                if index > best:
                    break
                if self._matches(compiled, pattern, module):
                    best = index
                    break
            self._known[module] = self._values[best] if best < len(self._values) else None
        return self._known[module]

    def _named(self, module: str) -> list[int]:
        indices = []
        for start in [0, *(at + 1 for at, character in enumerate(module) if character == ".")]:
            end = module[start:]
            for (anchored, wild), names in self._names.get(len(end), {}).items():
                if anchored and start:
                    continue
                places = set(wild)
                index = names.get("".join(c for at, c in enumerate(end) if at not in places))
                if index is not None:
                    indices.append(index)
        return indices

    def _matches(self, compiled: Any, pattern: str, module: str) -> bool:
        begun = time.monotonic()
        try:
            matched = compiled.match(module, timeout=max(self._left, 1e-3), concurrent=True) is not None
        except TimeoutError:
            slow = f"{pattern[:80]!r} takes longer than {PATIENCE:g} s to match"
            raise ValueError(f"{self._where}: {slow}; name the modules") from None
        self._left -= time.monotonic() - begun
        return matched
