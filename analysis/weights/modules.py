"""Modules of a model by name: which of them several adapters share, and in which layer and projection each stands."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import zip_longest

from models.module_names import inner_names, natural_key


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
    found = inner_names(module, others)
    return module in others or (len(found) == 1 and len(inner_names(found[0], own)) == 1)


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
