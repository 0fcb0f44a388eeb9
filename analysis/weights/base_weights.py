"""Low-rank deltas against their base weight: the part in its top singular directions, and intruder dimensions.

Letters: W the weight, out x in, n = min(out, in), dW = b @ a a delta of rank r. One dense eigendecomposition of W's
n x n Gram gives every singular vector of W for all adapters. In their basis the Gram of W + dW is diagonal plus rank
2 r, so ARPACK finds its top eigenvectors in milliseconds, and a vector's cosines with W's singular vectors are its
entries. Neither dW nor W + dW is formed. All float64, from a fixed starting vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from analysis.weights.geometry import TOP_K
from analysis.weights.modules import places
from analysis.weights.summary import grouped
from models.adapter import Factors
from models.module_names import natural_key

SHARES = ("both", "left", "right")
THRESHOLD = 0.5  # the |cosine| below which a direction is new
SMALL = 200  # rows up to which computing all eigenvectors is as fast as computing some
RESOLVED = 1e-6  # relative gap of two distinct eigenvalues: below the usual gaps of about 1 / n, above rounding
EPSILON = float(np.finfo(np.float64).eps)
Array = np.ndarray


@dataclass(frozen=True)
class BaseGeometry:
    """One module's deltas against its weight: plain lists with one value per adapter.

    shape: [out, in]. k: as asked, cut to W's rank. weight_square, squares: |W|_F^2, |dW|_F^2. both, left, right:
    |U_k^T dW V_k|_F^2, |U_k^T dW|_F^2 and |dW V_k|_F^2 over |dW|_F^2, U_k and V_k the top k singular vectors of W.
    relative_sigma: sigma_1(dW) / sigma_1(W). intruders: the number of intruder dimensions among the top k left
    singular vectors of W + dW. From ``both`` on None where the delta or W is zero.
    """

    shape: list[int]
    k: int
    threshold: float
    weight_square: float
    squares: list[float]
    both: list[float | None]
    left: list[float | None]
    right: list[float | None]
    relative_sigma: list[float | None]
    intruders: list[int | None]


def module_base_geometry(
    weight: Tensor, factors: Sequence[Factors], k: int = TOP_K, threshold: float = THRESHOLD
) -> BaseGeometry:
    """All adapters at one module against its weight: out x in, M x (out x r_m, r_m x in) -> BaseGeometry.

    An intruder dimension (Shuttleworth et al. 2024, 2410.21228) is a left singular vector of W + dW whose |cosine|
    with every left singular vector of W is below ``threshold``. A singular value of W below about 1e-6 sigma_1 counts
    as zero and its vector as none of W's. For singular values that are equal to about 1e-6, every vector of their span
    counts as W's. One-line ValueError for no adapter, k < 1, a threshold outside (0, 1], shapes that do not match, NaN
    or inf.
    """
    if not factors or k < 1 or not 0 < threshold <= 1:
        raise ValueError(f"an adapter, k >= 1 and 0 < threshold <= 1 are needed: {len(factors)}, {k}, {threshold}")
    for f in factors:
        if (f.b.shape[0], f.a.shape[1]) != tuple(weight.shape) or f.b.shape[1] != f.a.shape[0]:
            shapes = f"{tuple(f.b.shape)} and {tuple(f.a.shape)} do not fit a weight {tuple(weight.shape)} (out, in)"
            raise ValueError(f"factors {shapes}; is it their base's?")
    parts = [weight, *(part for f in factors for part in (f.b, f.a))]
    if not all(torch.isfinite(part).all() for part in parts):
        raise ValueError("NaN or inf in a base weight or in the factors made for it")
    w, *sides = (part.detach().double().cpu().numpy() for part in parts)
    base = _Base(w, k)
    rows = [_row(base, b, a, threshold) for b, a in zip(sides[::2], sides[1::2], strict=True)]
    return BaseGeometry(list(w.shape), base.k, threshold, float(np.sum(w**2)), *map(list, zip(*rows, strict=True)))


def _row(base: _Base, b: Array, a: Array, threshold: float) -> tuple[Any, ...]:
    """One adapter's values, in the order of BaseGeometry's lists."""
    upper_b, upper_a = np.linalg.qr(b).R, np.linalg.qr(a.T).R
    sigma = np.linalg.svd(upper_b @ upper_a.T, compute_uv=False)
    square = float(np.sum(sigma**2))
    if square == 0 or base.k == 0:
        return square, None, None, None, None, None
    inside = base.left(b)
    left, right = inside[: base.k], a @ base.v
    parts = (left @ right, left @ upper_a.T, upper_b @ right)
    shares = [min(1.0, float(np.sum(part**2)) / square) for part in parts]
    squares = base.within(base.top_of_sum(b, inside, a) ** 2)
    intruders = int(np.sum(squares.max(axis=0) < threshold**2))
    return square, *shares, float(sigma[0] / base.sigma[0]), intruders


class _Base:
    """Decomposition of one weight W, shared by all adapters: eigenvectors of the smaller of W W^T and W^T W.

    sigma: the rho singular values of W whose squares are above ``floor``, descending; the others count as zero.
    ``left(x)``: U^T x, rho x d, with their left singular vectors U. k: at most rho. v: the top k right ones, in x k.
    """

    def __init__(self, weight: Array, k: int) -> None:
        self.weight, self.wide = weight, len(weight) <= weight.shape[1]
        values, vectors = np.linalg.eigh(weight @ weight.T if self.wide else weight.T @ weight)
        self.floor = max(weight.shape) * EPSILON * float(values[-1])
        rank = int(np.sum(values > self.floor))
        values, self.vectors = values[::-1][:rank], np.ascontiguousarray(vectors[:, ::-1][:, :rank])
        self.sigma, self.k = np.sqrt(values), min(k, rank)
        top = self.vectors[:, : self.k]
        self.v = weight.T @ top / self.sigma[: self.k] if self.wide else top
        # Equal singular values have no distinguished vectors in their span.
        self.groups = np.flatnonzero(np.append(True, values[:-1] - values[1:] > RESOLVED * values[:-1])[:rank])

    def left(self, x: Array) -> Array:
        if self.wide:
            return self.vectors.T @ x
        return self.vectors.T @ (self.weight.T @ x) / self.sigma[:, None]

    def image(self, a: Array) -> Array:
        """U^T W a.T, rho x r."""
        if self.wide:
            return self.vectors.T @ (self.weight @ a.T)
        return self.sigma[:, None] * (self.vectors.T @ a.T)

    def outside(self, x: Array, inside: Array) -> Array:
        """The part of x outside the span of U, as d x d or fewer rows in a basis of its own; ``inside`` = U^T x."""
        back = self.vectors @ inside if self.wide else self.weight @ (self.vectors @ (inside / self.sigma[:, None]))
        return np.linalg.qr(x - back).R

    def within(self, squares: Array) -> Array:
        """rho x d squared cosines with U -> squared cosines with the span of each group of equal singular values."""
        return np.add.reduceat(squares, self.groups)

    def top_of_sum(self, b: Array, inside: Array, a: Array) -> Array:
        """U^T of the top k (at most its rank) left singular vectors of W + b @ a, rho x k; ``inside`` = U^T b.

        In the basis U, extended by the part of b outside it, (W + b a)(W + b a)^T is diagonal plus rank 2 r.
        """
        rank = len(self.sigma)
        outside = self.outside(b, inside) if rank < len(b) else b[:0]
        b = np.concatenate([inside, outside])
        p = b @ (a @ a.T) / 2
        p[:rank] += self.image(a)
        diagonal = np.append(self.sigma**2, np.zeros(len(outside)))
        values, vectors = _top(diagonal, p, b, self.k)
        return vectors[:rank, values > self.floor * max(1.0, values[0] / self.sigma[0] ** 2)]


def _top(diagonal: Array, p: Array, b: Array, k: int) -> tuple[Array, Array]:
    """The min(k, n) largest eigenvalues of ``diag(diagonal) + p @ b.T + b @ p.T``, descending, and their vectors."""
    n = len(diagonal)
    if n <= max(SMALL, 4 * k):
        values, vectors = np.linalg.eigh(np.diag(diagonal) + p @ b.T + b @ p.T)
        return values[::-1][:k], vectors[:, ::-1][:, :k]

    def apply(x: Array) -> Array:
        return diagonal * x + p @ (b.T @ x) + b @ (p.T @ x)

    start = np.random.default_rng(0)
    operator = LinearOperator((n, n), matvec=apply, dtype=np.float64)
    values, vectors = eigsh(operator, k, which="LA", v0=start.standard_normal(n), ncv=min(n, 4 * k + 20), rng=start)
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order]


def summarise_base(names: Sequence[str], modules: Mapping[str, BaseGeometry]) -> dict:
    """Summarise per-module results as the ``base`` part of the results; independent of the order of ``modules``.

    Returns k, the largest of a module; threshold; adapters, layers, projections and modules: one entry per adapter
    (and layer, projection or module) with the keys of ``_entry``; chance, the expected shares of a random direction in
    the space of all these weights. None where undefined. ValueError for no module, or modules that differ in
    threshold or number of adapters.
    """
    if not modules:
        raise ValueError("base geometry of no module: the adapters share no target")
    ordered = {name: modules[name] for name in sorted(modules, key=natural_key)}
    every = list(ordered.values())
    if {(len(module.squares), module.threshold) for module in every} != {(len(names), every[0].threshold)}:
        raise ValueError(f"modules differ in threshold, or do not hold the {len(names)} adapters that are named")

    def entries(groups: Sequence[tuple[dict, list[BaseGeometry]]]) -> list[dict]:
        return [{"name": name, **label, **_entry(m, held)} for m, name in enumerate(names) for label, held in groups]

    where = places(ordered)

    def parts(key: str) -> list[dict]:
        return entries([(label, [every[row] for row in rows]) for label, rows in grouped(where.values(), key)])

    labels = [{"module": name, **where[name]} for name in ordered]
    sizes = [(module.k, *module.shape) for module in every if module.k]
    total = sum(out * in_ for _, out, in_ in sizes)
    held = [sum(k * k for k, _, _ in sizes), sum(k * in_ for k, _, in_ in sizes), sum(k * out for k, out, _ in sizes)]
    return {
        "k": max(module.k for module in every),
        "threshold": every[0].threshold,
        "adapters": entries([({}, every)]),
        "layers": parts("layer"),
        "projections": parts("projection"),
        "modules": entries([(label, [module]) for label, module in zip(labels, every, strict=True)]),
        "chance": {part: size / total if total else None for part, size in zip(SHARES, held, strict=True)},
    }


def _entry(m: int, modules: Sequence[BaseGeometry]) -> dict:
    """One adapter over some modules; zero_modules, where delta or weight is zero, count in relative_norm only.

    Shares are sums of |P dW|^2 over those of |dW|^2, relative_norm the root of the sum of |dW|^2 over that of |W|^2.
    """
    alive = [module for module in modules if module.intruders[m] is not None]
    weight = math.fsum(module.weight_square for module in modules)
    energy = math.fsum(module.squares[m] for module in alive)
    parts = {part: math.fsum(getattr(module, part)[m] * module.squares[m] for module in alive) for part in SHARES}
    return {
        **{part: held / energy if alive else None for part, held in parts.items()},
        "relative_norm": math.sqrt(math.fsum(module.squares[m] for module in modules) / weight) if weight else None,
        "relative_sigma_median": float(np.median([module.relative_sigma[m] for module in alive])) if alive else None,
        "intruders": sum(module.intruders[m] or 0 for module in alive) if alive else None,
        "modules": len(modules),
        "zero_modules": len(modules) - len(alive),
    }
