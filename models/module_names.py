"""Names of modules as an adapter's and a base's file write them: what wrappers put in front, and their order."""

from __future__ import annotations

import re
from collections.abc import Iterable

PREFIXES = ("base_model.model.", "module.")  # PEFT's, DistributedDataParallel's
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def plain_name(key: str) -> str:
    """A tensor's or module's name without what PEFT, torch.compile and data parallel wrappers put into it."""
    name = WRAPPERS.sub("", key)
    while (prefix := next((p for p in PREFIXES if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def alike(name: str, names: Iterable[str]) -> list[str]:
    """Those of the names that are ``name`` with a prefix more or less: "layers.0.q" and "language.model.layers.0.q"."""
    return [other for other in names if other.endswith(f".{name}") or name.endswith(f".{other}")]


def inner_names(name: str, names: Iterable[str]) -> list[str]:
    """Those of the names that have one part more or less in front, as a model's ("model.layers.0.q") and its inner
    model's ("layers.0.q") have."""
    return [other for other in names if other.partition(".")[2] == name or name.partition(".")[2] == other]


def natural_key(module: str) -> list[tuple[int, int | str]]:
    """A sort key by which layer 2 comes before layer 10."""
    parts = re.split(r"([0-9]{1,18})", module)
    return [(0, int(part)) if part.isdecimal() and part.isascii() else (1, part) for part in parts if part]
