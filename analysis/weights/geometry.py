"""The geometry of low-rank deltas at one module, computed from the factors.

Letters: M adapters, P = M (M - 1) / 2 pairs (i < j, in itertools.combinations order), r the largest rank, k the
dimension of the compared subspaces. With orthonormal bases ``b = Qb Rb``, ``a.T = Qa Ra`` and the r x r SVD
``Rb Ra.T = W S Z.T``, a delta is ``(Qb W) S (Qa Z).T``. One Gram of the stacked bases per side then holds all pairs:
every inner product, every principal cosine (Bjorck & Golub 1973) and the top directions are r x r algebra on its
blocks. All float64.

The bases come from Cholesky QR, twice (Yamamoto et al. 2015, section 2): a factor's own Gram gives R, and the Gram of
the then nearly orthonormal rows, which the pairs need anyway, gives the correction. This is as accurate as
Householder's QR up to a condition number of about 1e7, and faster; Householder's is used for worse factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from models.adapter import Factors

TOP_K = 10  # the reference study compares the top 10 singular vectors
# Below this angle (radians) acos loses digits that asin keeps; above it acos is good to 1e-12.
SINE_BELOW = 1e-3
SKEW = 1e-3  # largest deviation from orthonormal before the correction; beyond it Householder's QR is used
STRIPS = 6  # strips in which the Gram's upper triangle is computed: more save sums, fewer save memory traffic
MOST_AT_ONCE = 2**24  # numbers that a product over pairs, or a strip of the Gram of many adapters, holds at a time


@dataclass(frozen=True)
class ModuleGeometry:
    """One module's geometry in numpy arrays, float64 or integer for counts.

    singular_values M x r: descending, padded with zeros; ranks M: how many are above numpy's matrix_rank
    tolerance. gram M x M: inner products <dW_i, dW_j>. Per pair, P of them, all or those asked for: pair_k, the
    subspaces' dimension min(k, ranks);
    left and right P x k, pair_k principal angles in degrees, ascending; u1 and v1, |<u1, u1'>| and |<v1, v1'>|; gap,
    the smaller of both (sigma_k - sigma_k+1) / sigma_k at pair_k. NaN after pair_k, and where a delta is zero.
    """

    shape: tuple[int, int]
    k: int
    ranks: np.ndarray
    singular_values: np.ndarray
    gram: np.ndarray
    pair_k: np.ndarray
    left: np.ndarray
    right: np.ndarray
    u1: np.ndarray
    v1: np.ndarray
    gap: np.ndarray


@dataclass(frozen=True)
class _Side:
    """One side of all adapters: q M x r x d, nearly orthonormal rows; turn M x r x s maps these to singular vectors."""

    q: Tensor
    gram: Tensor | None  # M x r x M x r, of the rows of q; blocks below the diagonal are not computed
    turn: Tensor

    def crosses(self, first: Tensor, second: Tensor) -> Tensor:
        """P x s x s: singular vectors of the first adapters against those of the second (first <= second)."""
        return self.turn[first].transpose(1, 2) @ self._blocks(first, second) @ self.turn[second]

    def _blocks(self, first: Tensor, second: Tensor) -> Tensor:
        """P x r x r: the Gram's blocks of these pairs; where it is not there they are computed, some at a time."""
        if self.gram is not None:
            return self.gram[first, :, second]
        _, r, d = self.q.shape
        some = max(1, MOST_AT_ONCE // (r * d))
        pairs = zip(first.split(some), second.split(some), strict=True)
        blocks = [self.q[i] @ self.q[j].transpose(1, 2) for i, j in pairs]
        return torch.cat(blocks) if blocks else torch.zeros(0, r, r, dtype=torch.float64)

    def top(self, adapter: int, k: int) -> Tensor:
        """d x k: the first singular vectors of one adapter."""
        return self.q[adapter].T @ self.turn[adapter][:, :k]


def module_geometry(
    factors: Sequence[Factors], k: int = TOP_K, pairs: np.ndarray | None = None, whole_gram: bool = True
) -> ModuleGeometry:
    """Geometry of all adapters at one module: M x (out x r_m, r_m x in) -> ModuleGeometry.

    ``pairs`` (P x 2, first < second) limits what is computed per pair to these, with memory that grows by pairs and by
    adapters, not by their square; without ``whole_gram`` the Gram then has its diagonal and these pairs alone, NaN
    elsewhere.

    Modules are independent, so the result does not depend on which modules share a call or a task.
    ValueError if the adapters' shapes differ, there is no adapter, or k < 1.
    """
    if not factors or k < 1:
        raise ValueError(f"geometry needs one adapter or more and k >= 1, got {len(factors)} adapters and k = {k}")
    shapes = {(f.b.shape[0], f.a.shape[1]) for f in factors}
    if len(shapes) > 1:
        raise ValueError(f"adapters disagree on this module's shape: {sorted(shapes)} (out, in); are they of one base?")
    left, right, sigma = _decompose(factors, crossed=pairs is None)
    (shape,) = shapes
    values = sigma.numpy()
    ranks = (values > max(shape) * np.finfo(np.float64).eps * values[:, :1]).sum(1)

    ends = pair_indices(len(factors)) if pairs is None else (pairs[:, 0].copy(), pairs[:, 1].copy())
    first, second = (torch.from_numpy(side) for side in ends)
    cross_left, cross_right = left.crosses(first, second), right.crosses(first, second)
    if pairs is not None and whole_gram:
        gram = _whole_gram(left, right, sigma)
    else:
        gram = torch.full((len(factors), len(factors)), math.nan, dtype=torch.float64)
    gram.diagonal().copy_(sigma.square().sum(1))
    weighted = (sigma[first, :, None] * cross_left * cross_right * sigma[second, None, :]).sum((1, 2))
    gram[first, second] = gram[second, first] = weighted

    pair_k = np.minimum(k, np.minimum(ranks[first.numpy()], ranks[second.numpy()]))
    gaps = _gaps(values)
    dimension = np.maximum(pair_k, 1) - 1
    gap = np.minimum(gaps[first.numpy(), dimension], gaps[second.numpy(), dimension])
    return ModuleGeometry(
        shape=shape,
        k=k,
        ranks=ranks,
        singular_values=values,
        gram=gram.numpy(),
        pair_k=pair_k,
        left=_angles(cross_left, left, ends, pair_k, k),
        right=_angles(cross_right, right, ends, pair_k, k),
        u1=_first(cross_left, pair_k),
        v1=_first(cross_right, pair_k),
        gap=np.where(pair_k > 0, gap, np.nan),
    )


def inner(f: Factors, g: Factors) -> float:
    """<dW_f, dW_g> of one module, by r x r products."""
    return float(((f.b.double().T @ g.b.double()) * (f.a.double() @ g.a.double().T)).sum())


def total_norm(adapter: Mapping[str, Factors]) -> float:
    """Frobenius norm of an adapter's update over all its modules, from the factors by module."""
    return math.sqrt(max(0.0, math.fsum(inner(f, f) for f in adapter.values())))


def pair_indices(count: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second indices of all pairs of ``count`` items, in itertools.combinations order."""
    pairs = np.array(list(combinations(range(count), 2)), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def _gaps(values: np.ndarray) -> np.ndarray:
    """(sigma_k - sigma_k+1) / sigma_k at every k, of spectra M x r; NaN where sigma_k is 0."""
    following = np.concatenate([values[:, 1:], np.zeros((len(values), 1))], axis=1)
    return np.divide(values - following, values, out=np.full_like(values, np.nan), where=values > 0)


def _decompose(factors: Sequence[Factors], crossed: bool) -> tuple[_Side, _Side, Tensor]:
    """Both sides and the singular values M x r. Smaller ranks are padded with zeros, which add no direction.

    ``crossed``: with the Gram of all adapters' rows on each side, which all pairs need.
    """
    rank = max(f.a.shape[0] for f in factors)
    q_left, r_left, gram_left, own_left = _bases([f.b.double().T for f in factors], rank, crossed)
    q_right, r_right, gram_right, own_right = _bases([f.a.double() for f in factors], rank, crossed)
    # For each side: B = Q1.T R1 with Q1 nearly orthonormal, and Q1 Q1.T = R2.T R2, so B = (R2^-T Q1).T (R2 R1).
    fix_left, fix_right = _upper(own_left), _upper(own_right)
    w, sigma, zh = torch.linalg.svd(fix_left @ r_left @ (fix_right @ r_right).transpose(1, 2), full_matrices=False)
    turn_left = torch.linalg.solve_triangular(fix_left, w, upper=True)
    turn_right = torch.linalg.solve_triangular(fix_right, zh.transpose(1, 2).contiguous(), upper=True)
    return _Side(q_left, gram_left, turn_left), _Side(q_right, gram_right, turn_right), sigma


def _bases(rows: Sequence[Tensor], rank: int, crossed: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """For M matrices r_m x d: q (M x r x d) with nearly orthonormal rows, R (M x r x r) with ``row = R.T q``, q's Gram
    (None unless ``crossed``) and its M diagonal blocks.

    A matrix with fewer than ``rank`` rows, or with dependent rows, still gets ``rank`` orthonormal rows if d allows.
    """
    m, d = len(rows), rows[0].shape[1]
    size = min(rank, d)
    own = torch.zeros(m, rank, rank, dtype=torch.float64)
    for held, row in zip(own, rows, strict=True):
        torch.mm(row, row.T, out=held[: len(row), : len(row)])
    upper, failed = torch.linalg.cholesky_ex(own, upper=True)
    poor = (failed > 0) | (size < rank)
    upper[poor] = torch.eye(rank, dtype=torch.float64)
    inverse = torch.linalg.inv(upper)
    upper, q = upper[:, :size], torch.empty(m, size, d, dtype=torch.float64)
    for held, row, turn, bad in zip(q, rows, inverse, poor.tolist(), strict=True):
        if not bad:
            torch.mm(turn[: len(row)].T, row, out=held)
    for index in torch.nonzero(poor).flatten().tolist():
        q[index], upper[index] = _householder(rows[index], rank)
    gram = _gram(q) if crossed else None
    own = q @ q.transpose(1, 2) if gram is None else _diagonal(gram)
    skew = (own - torch.eye(size, dtype=torch.float64)).abs().amax((1, 2))
    poor = ~(skew < SKEW) & ~poor
    if poor.any():
        for index in torch.nonzero(poor).flatten().tolist():
            q[index], upper[index] = _householder(rows[index], rank)
        gram = _gram(q) if crossed else None
        own = q @ q.transpose(1, 2) if gram is None else _diagonal(gram)
    return q, upper, gram, own


def _whole_gram(left: _Side, right: _Side, sigma: Tensor) -> Tensor:
    """M x M inner products of the deltas, from their singular vectors, in strips of adapters."""
    m, s = sigma.shape
    u = left.turn.transpose(1, 2) @ left.q * sigma[:, :, None]
    v = right.turn.transpose(1, 2) @ right.q
    flat_u, flat_v = u.reshape(m * s, -1), v.reshape(m * s, -1)
    gram = torch.zeros(m, m, dtype=torch.float64)
    strip = max(1, MOST_AT_ONCE // (m * s * s))
    for start in range(0, m, strip):
        some, rest = slice(start * s, (start + strip) * s), slice(start * s, None)
        products = (flat_u[some] @ flat_u[rest].T) * (flat_v[some] @ flat_v[rest].T)
        gram[start : start + strip, start:] = products.reshape(-1, s, m - start, s).sum((1, 3))
    return gram.triu() + gram.triu(1).T


def _householder(row: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    padded = torch.zeros(rank, row.shape[1], dtype=torch.float64)
    padded[: len(row)] = row
    q, upper = torch.linalg.qr(padded.T)
    return q.T, upper


def _gram(q: Tensor) -> Tensor:
    """M x r x M x r inner products of the rows of q; blocks below the diagonal are left zero."""
    m, r, d = q.shape
    flat = q.reshape(m * r, d)
    gram = torch.zeros(m * r, m * r, dtype=torch.float64)
    rows = max(2, m // STRIPS) * r
    for start in range(0, m * r, rows):
        end = start + rows
        torch.mm(flat[start:end], flat[start:].T, out=gram[start:end, start:])
    return gram.reshape(m, r, m, r)


def _diagonal(gram: Tensor) -> Tensor:
    """M x r x r: each adapter against itself."""
    return torch.diagonal(gram, dim1=0, dim2=2).permute(2, 0, 1)


def _upper(gram: Tensor) -> Tensor:
    return torch.linalg.cholesky(gram, upper=True)


def _first(cross: Tensor, pair_k: np.ndarray) -> np.ndarray:
    """|<top vector, top vector'>| per pair, clipped to 1; NaN where pair_k is 0."""
    return np.where(pair_k > 0, cross[:, 0, 0].abs().clamp(max=1.0).numpy(), np.nan)


def _angles(cross: Tensor, side: _Side, ends: tuple[np.ndarray, np.ndarray], pair_k: np.ndarray, k: int) -> np.ndarray:
    """P x k principal angles in degrees, ascending, NaN after pair_k; ``ends``: the pairs' adapters."""
    angles = np.full((len(pair_k), k), np.nan)
    first, second = ends
    for size in np.unique(pair_k[pair_k > 0]).tolist():
        rows = np.flatnonzero(pair_k == size)
        block = cross[rows, :size, :size]
        cosines = torch.linalg.svdvals(block).clamp(max=1.0)
        radians = torch.acos(cosines)
        for at in np.flatnonzero(cosines[:, 0].numpy() > math.cos(SINE_BELOW)).tolist():
            i, j = int(first[rows[at]]), int(second[rows[at]])
            radians[at] = _with_sines(radians[at], side.top(i, size), side.top(j, size), block[at])
        angles[rows, :size] = torch.rad2deg(radians).numpy()
    return angles


def _with_sines(angles: Tensor, x: Tensor, y: Tensor, cross: Tensor) -> Tensor:
    """Replace small angles by asin of the singular values of the part of y outside x (d x k each)."""
    sines = torch.linalg.svdvals(y - x @ cross).flip(0).clamp(max=1.0)
    return torch.where(sines < SINE_BELOW, torch.asin(sines), angles)
