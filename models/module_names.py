"""Module names in adapter and base files: prefixes of wrappers, matching, natural order."""

from __future__ import annotations

import re
from collections.abc import Iterable

PREFIXES = ("base_model.model.", "module.")  # PEFT's, DistributedDataParallel's
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def plain_name(key: str) -> str:
    """A tensor's or module's name without the parts that PEFT, torch.compile and data-parallel wrappers add."""
    name = WRAPPERS.sub("", key)
    while (prefix := next((p for p in PREFIXES if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def matching_names(name: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that equal ``name`` except for a prefix of one of the two, such as "language.model."."""
    return [other for other in names if other.endswith(f".{name}") or name.endswith(f".{other}")]


def inner_names(name: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` with exactly one leading part more or less than ``name``: "model.layers.0.q", "layers.0.q"."""
    return [other for other in names if other.partition(".")[2] == name or name.partition(".")[2] == other]


def natural_key(module: str) -> list[tuple[int, int | str]]:
    """A sort key that puts layer 2 before layer 10."""
    parts = re.split(r"([0-9]{1,18})", module)
    return [(0, int(part)) if part.isdecimal() and part.isascii() else (1, part) for part in parts if part]
