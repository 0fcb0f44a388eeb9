"""A model's modules by name: those that several adapters share, and the layer and projection of each."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import zip_longest

from models.module_names import inner_names, natural_key


def shared_modules(names: Sequence[Collection[str]]) -> list[str]:
    """The modules that every adapter has, in natural order; ValueError if there is none.

    For adapters saved from a model and from its inner model (with and without a leading ``model.``), modules that
    differ by that prefix are shared, under the longer names.
    """
    shared = set.intersection(*(set(modules) for modules in names)) if names else set()
    if not shared and names and all(names):
        longest = max(names, key=lambda modules: min(module.count(".") for module in modules))
        shared = {module for module in longest if all(_one_to_one(module, longest, other) for other in names)}
    if not shared:
        raise ValueError("the adapters share no module, so nothing can be compared: check their targets and base")
    return sorted(shared, key=natural_key)


def _one_to_one(module: str, own: Collection[str], others: Collection[str]) -> bool:
    """Whether ``others`` contains the module, or exactly one match that matches no other module of ``own``."""
    matches = inner_names(module, others)
    return module in others or (len(matches) == 1 and len(inner_names(matches[0], own)) == 1)


def layer_of(module: str) -> int | None:
    """The layer number in a module's name ("model.layers.3.self_attn.q_proj" -> 3), or None."""
    match = re.search(r"(?:^|\.)([0-9]{1,9})(?:\.|$)", module)
    return int(match.group(1)) if match else None


def projection_of(module: str) -> str:
    """The last part of a module's name ("model.layers.3.self_attn.q_proj" -> "q_proj")."""
    return module.rpartition(".")[2]


def places(modules: Collection[str]) -> dict[str, dict[str, int | str | None]]:
    """Each module's ``layer`` (from 0, as in its name; None outside of all layers) and ``projection``.

    If the model has several stacks of layers, such as an encoder and a decoder or a vision tower beside a text model,
    ``stack`` distinguishes them: the first part of the path in which they differ.
    """
    positions: dict[str, dict[str, int | str | None]]
    positions = {name: {"layer": layer_of(name), "projection": projection_of(name)} for name in modules}
    paths = {name: tuple(_path_to_layers(name)) for name in modules if positions[name]["layer"] is not None}
    several = sorted(set(paths.values()))
    if len(several) < 2:
        return positions
    lead = next(i for i, parts in enumerate(zip_longest(*several)) if len(set(parts)) > 1)
    first = [path[lead : lead + 1] or path for path in several]
    short = {path: part if first.count(part) == 1 else path[lead:] for path, part in zip(several, first, strict=True)}
    for name, place in positions.items():
        place["stack"] = ".".join(short[paths[name]]) if name in paths else None
    return positions


def _path_to_layers(module: str) -> list[str]:
    """The parts of a module's name before its layer's number."""
    parts = module.split(".")
    return parts[: next(i for i, part in enumerate(parts) if part.isdecimal() and part.isascii())]
