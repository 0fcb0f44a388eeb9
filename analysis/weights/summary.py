"""Summary of the geometry of many modules: per module, layer, projection, and over all of them.

Letters: N modules in natural order, M adapters, P pairs, all or those that were measured. Undefined values, as for a
zero delta, are NaN internally and None in results; means and medians are over the defined values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.weights.geometry import ModuleGeometry, pair_indices
from analysis.weights.modules import places
from models.module_names import natural_key


@dataclass(frozen=True)
class _Group:
    """Some modules and the label of the group."""

    label: dict[str, Any]
    rows: np.ndarray


@dataclass(frozen=True)
class _Pairs:
    """Some of the measured pairs: their places ``at`` among these, and their adapters."""

    at: np.ndarray
    first: np.ndarray
    second: np.ndarray


def summarise(
    names: Sequence[str],
    modules: Mapping[str, ModuleGeometry],
    pairs: np.ndarray | None = None,
    in_detail: np.ndarray | None = None,
) -> dict:
    """Summarise per-module results as the ``geometry`` part of the results; independent of the order of ``modules``.

    ``pairs`` (P x 2) are those that the modules were measured for, all where it is None; ``in_detail`` (P booleans)
    those of them that layers, projections and modules list, all where it is None.

    Returns k, the largest dimension of a compared subspace; adapters, one entry each (``_adapter_entries``);
    adapter_layers, adapter_projections and adapter_modules, {name, layer or projection or module, norm, effective_rank,
    stable_rank}; pairs, layers, projections and modules: one entry per pair, and per layer, projection or module (with
    its stack of layers if the model has several, ``modules.places``), with the keys of ``_pair_columns``, in modules
    also every angle; gram, the M x M inner products of the stacked deltas. Undefined values are None.
    ValueError for no module, or one with another number of adapters.
    """
    if not modules:
        raise ValueError("geometry of no module: the adapters share no target")
    ordered = {name: modules[name] for name in sorted(modules, key=natural_key)}
    for name, module in ordered.items():
        if len(module.ranks) != len(names):
            raise ValueError(f"module {name} holds {len(module.ranks)} adapters, {len(names)} names are given")
    stack = _Stack(list(ordered.values()))
    every = _Group({}, np.arange(len(ordered)))
    where = places(ordered)
    layers, projections = (
        [_Group(label, np.array(rows)) for label, rows in grouped(where.values(), key)]
        for key in ("layer", "projection")
    )
    single = [_Group({"module": name, **where[name]}, np.array([row])) for row, name in enumerate(ordered)]
    first, second = pair_indices(len(names)) if pairs is None else (pairs[:, 0], pairs[:, 1])
    whole = _Pairs(np.arange(len(first)), first, second)
    at = whole.at if in_detail is None else np.flatnonzero(in_detail)
    listed = _Pairs(at, first[at], second[at])
    return {
        "k": int(stack.pair_k.max(initial=0)) or stack.k,
        "adapters": _adapter_entries(names, stack),
        "adapter_layers": _sizes(names, stack, layers),
        "adapter_projections": _sizes(names, stack, projections),
        "adapter_modules": _sizes(names, stack, single),
        "pairs": _pair_entries(names, stack, [every], whole),
        "layers": _pair_entries(names, stack, layers, listed),
        "projections": _pair_entries(names, stack, projections, listed),
        "modules": _pair_entries(names, stack, single, listed, angles=True),
        "gram": stack.gram.sum(0).tolist(),
    }


class _Stack:
    """All modules' arrays stacked: gram N x M x M, values per adapter N x M, values per pair N x P."""

    def __init__(self, geometries: Sequence[ModuleGeometry]) -> None:
        self.k = geometries[0].k
        self.gram = np.stack([geometry.gram for geometry in geometries])
        self.ranks = np.stack([geometry.ranks for geometry in geometries])
        self.pair_k = np.stack([geometry.pair_k for geometry in geometries])
        self.left = np.stack([geometry.left for geometry in geometries])
        self.right = np.stack([geometry.right for geometry in geometries])
        self.effective = np.stack([effective_rank(geometry.singular_values) for geometry in geometries])
        self.stable = np.stack([stable_rank(geometry.singular_values) for geometry in geometries])
        self.gap = np.stack([_gap_at(geometry) for geometry in geometries])
        self.first_gap = np.stack([_gap_at(geometry, 1) for geometry in geometries])
        last = np.maximum(self.pair_k, 1)[..., None] - 1
        self.measures = {
            "angle_min_median_deg": (median, self.left[..., 0]),
            "angle_max_median_deg": (median, np.take_along_axis(self.left, last, 2)[..., 0]),
            "right_angle_min_median_deg": (median, self.right[..., 0]),
            "right_angle_max_median_deg": (median, np.take_along_axis(self.right, last, 2)[..., 0]),
            "u1": (mean, np.stack([geometry.u1 for geometry in geometries])),
            "v1": (mean, np.stack([geometry.v1 for geometry in geometries])),
            "overlap": (mean, overlap(self.left)),
            "right_overlap": (mean, overlap(self.right)),
            "gap_median": (median, np.stack([geometry.gap for geometry in geometries])),
        }


def effective_rank(sigma: np.ndarray) -> np.ndarray:
    """exp of the entropy of sigma / sum(sigma) over the last axis (Roy & Vetterli 2007, section 2); NaN for zero."""
    total = sigma.sum(-1, keepdims=True)
    share = np.divide(sigma, total, out=np.zeros_like(sigma), where=total > 0)
    terms = share * np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.where(total[..., 0] > 0, np.exp(-terms.sum(-1)), np.nan)


def stable_rank(sigma: np.ndarray) -> np.ndarray:
    """|dW|_F^2 / sigma_1^2 over the last axis (Rudelson & Vershynin 2007, section 1); NaN for a zero delta."""
    first = sigma[..., 0]
    return np.divide((sigma**2).sum(-1), first**2, out=np.full_like(first, np.nan), where=first > 0)


def overlap(angles: np.ndarray) -> np.ndarray:
    """Mean of cos^2 of principal angles (degrees) over the last axis: 1 for identical subspaces.

    It is |U^T U'|_F^2 / k, or one minus the squared projection distance on the Grassmann manifold over k (Hamm & Lee
    2008, section 3); NaN where no angle is defined.
    """
    return mean(np.moveaxis(np.cos(np.deg2rad(angles)) ** 2, -1, 0))


def median(values: np.ndarray) -> np.ndarray:
    """Median over the first axis, ignoring NaN; NaN where all values are."""
    ordered = np.sort(values, axis=0)  # NaN sorts last
    count = (~np.isnan(values)).sum(0)
    low, high = (np.maximum(count, 1) - 1) // 2, np.maximum(count, 1) // 2
    middle = [np.take_along_axis(ordered, at[None], 0)[0] for at in (low, high)]
    return np.where(count > 0, (middle[0] + middle[1]) / 2, np.nan)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis, ignoring NaN; NaN where all values are."""
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0.0).sum(0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _gap_at(module: ModuleGeometry, k: int | None = None) -> np.ndarray:
    """(sigma_k - sigma_k+1) / sigma_k of every adapter at min(k, its rank); 1 at the last singular value."""
    sigma = np.pad(module.singular_values, ((0, 0), (0, 1)))
    at = np.minimum(k or module.k, module.ranks)
    rows = np.arange(len(sigma))
    here, following = sigma[rows, np.maximum(at, 1) - 1], sigma[rows, np.maximum(at, 1)]
    return np.divide(here - following, here, out=np.full_like(here, np.nan), where=at > 0)


def grouped(where: Iterable[Mapping[str, int | str | None]], key: str) -> list[tuple[dict[str, Any], list[int]]]:
    """(label, rows) of each group: indices into ``where`` with the same ``key`` (layer or projection) and stack.

    Sorted by label; an entry whose key is None is in no group.
    """
    rows: dict[tuple[str, Any], list[int]] = defaultdict(list)
    stacked = False
    for row, place in enumerate(where):
        stacked |= "stack" in place
        if place[key] is not None:
            rows[str(place.get("stack") or ""), place[key]].append(row)
    return [
        (({"stack": stack or None} if stacked else {}) | {key: label}, held)
        for (stack, label), held in sorted(rows.items())
    ]


def defined(values: np.ndarray) -> list[float | None]:
    """The values as a list, with None for NaN."""
    return [None if value != value else value for value in values.tolist()]


def _norms(stack: _Stack, rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(np.diagonal(stack.gram[rows], axis1=1, axis2=2).sum(0), 0.0))


def _adapter_entries(names: Sequence[str], stack: _Stack) -> list[dict]:
    """Norm and spectrum of each adapter; zero deltas are counted and left out of the means and medians."""
    rows = np.arange(len(stack.ranks))
    columns = {
        "name": list(names),
        "norm": _norms(stack, rows).tolist(),
        "effective_rank": defined(mean(stack.effective)),
        "stable_rank": defined(mean(stack.stable)),
        "modules": [len(rows)] * len(names),
        "zero_modules": (stack.ranks == 0).sum(0).tolist(),
        "rank": stack.ranks.max(0).tolist(),
        "gap_median": defined(median(stack.gap)),
        "first_gap_median": defined(median(stack.first_gap)),
    }
    return _records(columns)


def _sizes(names: Sequence[str], stack: _Stack, groups: Sequence[_Group]) -> list[dict]:
    """Norm, effective and stable rank of each adapter in each group."""
    by_group = [
        _records(
            {
                "name": list(names),
                **{key: [value] * len(names) for key, value in group.label.items()},
                "norm": _norms(stack, group.rows).tolist(),
                "effective_rank": defined(mean(stack.effective[group.rows])),
                "stable_rank": defined(mean(stack.stable[group.rows])),
            }
        )
        for group in groups
    ]
    return [entry for entries in zip(*by_group, strict=True) for entry in entries]


def layer_grams(modules: Mapping[str, ModuleGeometry]) -> np.ndarray:
    """L x M x M: each layer's inner products, in the order in which ``summarise`` lists an adapter's layers."""
    ordered = sorted(modules, key=natural_key)
    layers = grouped(places(ordered).values(), "layer")
    return np.stack([np.sum([modules[ordered[row]].gram for row in rows], axis=0) for _, rows in layers])


def _pair_entries(
    names: Sequence[str], stack: _Stack, groups: Sequence[_Group], pairs: _Pairs, angles: bool = False
) -> list[dict]:
    """One entry per pair and group; the groups of a pair are adjacent."""
    both = {"a": [names[i] for i in pairs.first], "b": [names[j] for j in pairs.second]}
    by_group = []
    for group in groups:
        label = {key: [value] * len(pairs.at) for key, value in group.label.items()}
        columns = {**both, **label, **_pair_columns(stack, group.rows, pairs)}
        if angles:
            (row,) = group.rows
            columns |= dict(_every_angle(stack, row, pairs.at))
        by_group.append(_records(columns))
    return [entry for entries in zip(*by_group, strict=True) for entry in entries]


def _pair_columns(stack: _Stack, rows: np.ndarray, pairs: _Pairs) -> dict[str, list]:
    """Values of the pairs over some modules, by key."""
    inner = stack.gram[rows].sum(0)
    cosine = _cosines(inner, pairs.first, pairs.second)
    pair_k = stack.pair_k[rows][:, pairs.at]
    alive = (pair_k > 0).sum(0)
    low = np.where(pair_k > 0, pair_k, pair_k.max(initial=0) + 1).min(0)
    return {
        "cosine": defined(cosine),
        "orthogonal_fraction": defined(np.sqrt((1 - cosine) * (1 + cosine))),
        **{key: defined(reduce(values[rows][:, pairs.at])) for key, (reduce, values) in stack.measures.items()},
        "k": [size if count else None for size, count in zip(low.tolist(), alive, strict=True)],
        "k_max": [size or None for size in pair_k.max(0).tolist()],
        "defined_modules": alive.tolist(),
    }


def _cosines(inner: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of stacked deltas, clipped to [-1, 1]; NaN if one is zero."""
    norms = np.sqrt(np.diagonal(inner))
    scale = norms[first] * norms[second]
    cosines = np.divide(inner[first, second], scale, out=np.full_like(scale, np.nan), where=scale > 0)
    return np.clip(cosines, -1.0, 1.0)


def _every_angle(stack: _Stack, row: int, at: np.ndarray) -> Iterator[tuple[str, list[list[float]]]]:
    sizes = stack.pair_k[row, at].tolist()
    for key, angles in (("angles_deg", stack.left[row, at]), ("right_angles_deg", stack.right[row, at])):
        yield key, [held[:size] for held, size in zip(angles.tolist(), sizes, strict=True)]


def _records(columns: Mapping[str, Sequence]) -> list[dict]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
