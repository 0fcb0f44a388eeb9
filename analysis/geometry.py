"""The geometry of low-rank deltas at one module, from the factors alone, and its summary over modules.

Letters: M adapters, P = M (M - 1) / 2 pairs (i < j, in itertools.combinations order), r the rank.
With thin QR ``b = Qb Rb``, ``a.T = Qa Ra`` and the r x r SVD ``Rb Ra.T = W S Z.T``, a delta is
``(Qb W) S (Qa Z).T``. One Gram of the stacked bases a side then holds all pairs: every inner product, every
principal cosine (Bjorck & Golub 1973) and the top directions are r x r algebra on its blocks. All float64.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from analysis.lora import Factors, layer_of, natural_key, projection_of

TOP_K = 10  # the reference study compares the top 10 singular vectors
# Below this angle (radians) acos loses digits that asin keeps; above it acos is good to 1e-12.
SINE_BELOW = 1e-3
PartOf = Callable[[str], int | str | None]


@dataclass(frozen=True)
class ModuleGeometry:
    """One module's geometry as plain lists: picklable, and ``dataclasses.asdict`` of it is JSON.

    singular_values[m]: descending, ranks[m] of them above numpy's matrix_rank tolerance.
    gram[i][j]: inner product <dW_i, dW_j>. Per pair, in combinations order: pair_k, the subspaces' dimension
    min(k, ranks); left and right, pair_k principal angles in degrees, ascending; u1 and v1, |<u1, u1'>| and
    |<v1, v1'>|; gap, the smaller of both (sigma_k - sigma_k+1) / sigma_k at pair_k. Where a delta is zero:
    pair_k 0, no angles, and None.
    """

    shape: list[int]
    k: int
    ranks: list[int]
    singular_values: list[list[float]]
    gram: list[list[float]]
    pair_k: list[int]
    left: list[list[float]]
    right: list[list[float]]
    u1: list[float | None]
    v1: list[float | None]
    gap: list[float | None]


@dataclass(frozen=True)
class _Bases:
    """Stacked over M: an orthonormal d x p basis q and its p x s rotation w to singular vectors."""

    q: Tensor
    w: Tensor

    def crosses(self, first: Tensor, second: Tensor) -> Tensor:
        """P x s x s: singular vectors of the first adapters against those of the second."""
        m, d, p = self.q.shape
        wide = self.q.permute(1, 0, 2).reshape(d, m * p)
        gram = (wide.T @ wide).reshape(m, p, m, p).transpose(1, 2)
        return self.w[first].transpose(1, 2) @ gram[first, second] @ self.w[second]

    def top(self, adapter: int, k: int) -> Tensor:
        return self.q[adapter] @ self.w[adapter][:, :k]


def module_geometry(factors: Sequence[Factors], k: int = TOP_K) -> ModuleGeometry:
    """Geometry of all adapters at one module: M x (out x r_m, r_m x in) -> ModuleGeometry.

    Each module stands alone, so the result does not depend on which modules share a call or a task.
    ValueError if the adapters' shapes differ, there is none, or k < 1.
    """
    if not factors or k < 1:
        raise ValueError(f"geometry needs one adapter or more and k >= 1, got {len(factors)} adapters and k = {k}")
    shapes = {(f.b.shape[0], f.a.shape[1]) for f in factors}
    if len(shapes) > 1:
        raise ValueError(f"adapters disagree on this module's shape: {sorted(shapes)} (out, in); are they of one base?")
    left, right, sigma = _decompose(factors)
    (shape,) = shapes
    tolerance = max(shape) * torch.finfo(torch.float64).eps
    ranks = [int((s > tolerance * s[0]).sum()) for s in sigma]

    pairs = list(combinations(range(len(factors)), 2))
    gram = torch.diag(sigma.square().sum(1))
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    cross_left, cross_right = left.crosses(first, second), right.crosses(first, second)
    weighted = sigma[first, :, None] * cross_left * cross_right * sigma[second, None, :]
    gram[first, second] = gram[second, first] = weighted.sum((1, 2))

    pair_k = [min(k, ranks[i], ranks[j]) for i, j in pairs]
    spectra = _spectra(sigma, factors)
    return ModuleGeometry(
        shape=list(shape),
        k=k,
        ranks=ranks,
        singular_values=spectra,
        gram=gram.tolist(),
        pair_k=pair_k,
        left=_angles(cross_left, left, pairs, pair_k),
        right=_angles(cross_right, right, pairs, pair_k),
        u1=_first(cross_left, pair_k),
        v1=_first(cross_right, pair_k),
        gap=[
            min(relative_gap(spectra[i], size), relative_gap(spectra[j], size)) if size else None
            for (i, j), size in zip(pairs, pair_k, strict=True)
        ],
    )


def relative_gap(sigma: Sequence[float], k: int) -> float:
    """(sigma_k - sigma_k+1) / sigma_k with sigma_k > 0; 1 where the spectrum ends at k."""
    following = sigma[k] if k < len(sigma) else 0.0
    return (sigma[k - 1] - following) / sigma[k - 1]


def effective_rank(sigma: Sequence[float]) -> float | None:
    """exp of the entropy of sigma / sum(sigma) (Roy & Vetterli 2007, section 2); None for a zero delta."""
    total = math.fsum(sigma)
    if total == 0:
        return None
    shares = [s / total for s in sigma if s > 0]
    return math.exp(-math.fsum(p * math.log(p) for p in shares))


def _decompose(factors: Sequence[Factors]) -> tuple[_Bases, _Bases, Tensor]:
    """Bases of both sides and singular values M x s: batched by rank, zero-padded to one size."""
    by_rank: dict[int, list[int]] = defaultdict(list)
    for index, f in enumerate(factors):
        by_rank[f.a.shape[0]].append(index)
    groups: list[list[Tensor]] = [[], [], [], [], []]
    for members in by_rank.values():
        qb, rb = torch.linalg.qr(torch.stack([factors[i].b for i in members]).double())
        qa, ra = torch.linalg.qr(torch.stack([factors[i].a for i in members]).double().transpose(1, 2))
        w, s, zh = torch.linalg.svd(rb @ ra.transpose(1, 2), full_matrices=False)
        for held, found in zip(groups, (qb, w, qa, zh.transpose(1, 2), s), strict=True):
            held.append(found)
    order = [index for members in by_rank.values() for index in members]
    qb, w, qa, z, s = (_padded(held, order) for held in groups)
    return _Bases(qb, w), _Bases(qa, z), s


def _padded(groups: Sequence[Tensor], order: Sequence[int]) -> Tensor:
    """Stacks of unlike sizes as one, zeros after each; ``order`` names the row that each goes to."""
    if len(groups) == 1:
        return groups[0]
    size = [max(sizes) for sizes in zip(*(group.shape[1:] for group in groups), strict=True)]
    out = groups[0].new_zeros(len(order), *size)
    rows = iter(order)
    for group in groups:
        for tensor in group:
            out[next(rows)][tuple(slice(n) for n in tensor.shape)] = tensor
    return out


def _spectra(sigma: Tensor, factors: Sequence[Factors]) -> list[list[float]]:
    return [s[: min(f.a.shape[0], f.b.shape[0], f.a.shape[1])].tolist() for s, f in zip(sigma, factors, strict=True)]


def _first(cross: Tensor, pair_k: list[int]) -> list[float | None]:
    """|<top vector, top vector'>| a pair, which rounding may not take past 1."""
    tops = cross[:, 0, 0].abs().clamp(max=1.0).tolist()
    return [top if size else None for top, size in zip(tops, pair_k, strict=True)]


def _angles(cross: Tensor, bases: _Bases, pairs: list[tuple[int, int]], pair_k: list[int]) -> list[list[float]]:
    """Principal angles in degrees, ascending, a list of pair_k a pair."""
    angles: list[list[float]] = [[] for _ in pairs]
    for size in sorted(set(pair_k) - {0}):
        rows = [row for row, own in enumerate(pair_k) if own == size]
        block = cross[rows, :size, :size]
        cosines = torch.linalg.svdvals(block).clamp(max=1.0)
        found = torch.acos(cosines)
        for at, row in enumerate(rows):
            if cosines[at, 0] > math.cos(SINE_BELOW):
                i, j = pairs[row]
                found[at] = _with_sines(found[at], bases.top(i, size), bases.top(j, size), block[at])
            angles[row] = torch.rad2deg(found[at]).tolist()
    return angles


def _with_sines(angles: Tensor, x: Tensor, y: Tensor, cross: Tensor) -> Tensor:
    """Replace the small angles by asin of the singular values of what y has outside x (d x k each)."""
    sines = torch.linalg.svdvals(y - x @ cross).flip(0).clamp(max=1.0)
    return torch.where(sines < SINE_BELOW, torch.asin(sines), angles)


def summarise(names: Sequence[str], modules: Mapping[str, ModuleGeometry]) -> dict:
    """Join per-module results into the ``geometry`` part of the results, whatever the order of ``modules``.

    Returns k, the largest dimension that a compared subspace had; adapters [{name, norm, effective_rank,
    modules, zero_modules, rank, gap_median, first_gap_median}]; adapter_layers [{name, layer, norm,
    effective_rank}]; pairs, layers, projections and modules: one entry a pair, and per layer, projection or
    module, with the keys of ``_pair_entry``; gram, the M x M inner products of the stacked deltas. Undefined
    values are None.
    """
    if not modules:
        raise ValueError("geometry of no module: the adapters share no target")
    ordered = {name: modules[name] for name in sorted(modules, key=natural_key)}
    for name, found in ordered.items():
        if len(found.ranks) != len(names):
            raise ValueError(f"module {name} holds {len(found.ranks)} adapters, {len(names)} names are given")
    pairs = list(enumerate(combinations(range(len(names)), 2)))
    every = list(ordered.values())
    layers = _grouped(ordered, layer_of)
    projections = _grouped(ordered, projection_of)

    def entries(groups: Iterable[tuple[dict, list[ModuleGeometry]]]) -> list[dict]:
        held = list(groups)
        return [
            {"a": names[i], "b": names[j], **label, **_pair_entry(row, i, j, found)}
            for row, (i, j) in pairs
            for label, found in held
        ]

    return {
        "k": max((size for found in every for size in found.pair_k), default=every[0].k),
        "adapters": [{"name": name, **_adapter_entry(m, every)} for m, name in enumerate(names)],
        "adapter_layers": [
            {
                "name": name,
                "layer": layer,
                "norm": _norm(m, found),
                "effective_rank": _effective_rank(m, found),
            }
            for m, name in enumerate(names)
            for layer, found in layers
        ],
        "pairs": entries([({}, every)]),
        "layers": entries(({"layer": layer}, found) for layer, found in layers),
        "projections": entries(({"projection": projection}, found) for projection, found in projections),
        "modules": entries(
            ({"module": name, "layer": layer_of(name), "projection": projection_of(name)}, [found])
            for name, found in ordered.items()
        ),
        "gram": [[_inner(i, j, every) for j in range(len(names))] for i in range(len(names))],
    }


def _grouped(modules: Mapping[str, ModuleGeometry], part_of: PartOf) -> list[tuple[int | str, list[ModuleGeometry]]]:
    groups: dict[int | str, list[ModuleGeometry]] = defaultdict(list)
    for name, found in modules.items():
        part = part_of(name)
        if part is not None:
            groups[part].append(found)
    return sorted(groups.items())


def _inner(i: int, j: int, modules: Sequence[ModuleGeometry]) -> float:
    return math.fsum(found.gram[i][j] for found in modules)


def _norm(m: int, modules: Sequence[ModuleGeometry]) -> float:
    return math.sqrt(_inner(m, m, modules))


def _effective_rank(m: int, modules: Sequence[ModuleGeometry]) -> float | None:
    return mean(effective_rank(found.singular_values[m]) for found in modules)


def _adapter_entry(m: int, modules: Sequence[ModuleGeometry]) -> dict:
    """Norm and spectrum of one adapter; zero deltas are counted and left out of the means and medians."""
    alive = [(found.singular_values[m], min(found.k, found.ranks[m])) for found in modules if found.ranks[m]]
    return {
        "norm": _norm(m, modules),
        "effective_rank": _effective_rank(m, modules),
        "modules": len(modules),
        "zero_modules": len(modules) - len(alive),
        "rank": max(found.ranks[m] for found in modules),
        "gap_median": median(relative_gap(sigma, k) for sigma, k in alive),
        "first_gap_median": median(relative_gap(sigma, 1) for sigma, _ in alive),
    }


def _pair_entry(row: int, i: int, j: int, modules: Sequence[ModuleGeometry]) -> dict:
    """One pair over some modules; medians and means run over the ``modules`` where neither delta is zero."""
    cosine = _cosine(_inner(i, j, modules), _inner(i, i, modules), _inner(j, j, modules))
    alive = [found for found in modules if found.pair_k[row]]
    return {
        "cosine": cosine,
        "orthogonal_fraction": None if cosine is None else math.sqrt((1 - cosine) * (1 + cosine)),
        "angle_min_median_deg": median(found.left[row][0] for found in alive),
        "angle_max_median_deg": median(found.left[row][-1] for found in alive),
        "right_angle_min_median_deg": median(found.right[row][0] for found in alive),
        "right_angle_max_median_deg": median(found.right[row][-1] for found in alive),
        "u1": mean(found.u1[row] for found in alive),
        "v1": mean(found.v1[row] for found in alive),
        "gap_median": median(found.gap[row] for found in alive),
        "k": min((found.pair_k[row] for found in alive), default=None),
        "k_max": max((found.pair_k[row] for found in alive), default=None),
        "defined_modules": len(alive),
    }


def _cosine(inner: float, square_a: float, square_b: float) -> float | None:
    """Of two stacked deltas; None where one is zero. Rounding may not take it past 1."""
    scale = math.sqrt(square_a) * math.sqrt(square_b)
    return None if scale == 0 else max(-1.0, min(1.0, inner / scale))


def median(values: Iterable[float | None]) -> float | None:
    """Of the values that are defined; None where none is."""
    held = [value for value in values if value is not None]
    return statistics.median(held) if held else None


def mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are defined, summed exactly so that order does not matter; None where none is."""
    held = [value for value in values if value is not None]
    return math.fsum(held) / len(held) if held else None
