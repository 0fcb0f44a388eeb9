"""Low-rank deltas beside their base weight: what lies in its top singular directions, and which of the sum's are new.

Letters: W the weight, out x in, n = min(out, in), dW = b @ a a delta of rank r. Neither a dW nor a dense SVD of W or
W + dW is made. One n x n Gram of W serves all adapters; Lanczos on it, or on it plus the 2 r ranks that a delta adds,
finds the top left singular vectors. Whether a vector is near *any* singular vector of W is decided by Lanczos from
that vector: it bounds what every one of them can hold of it. All float64, from fixed starting vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from analysis.weights.geometry import TOP_K
from analysis.weights.modules import places
from analysis.weights.summary import grouped
from models.adapter import Factors
from models.module_names import natural_key

SHARES, COUNTS = ("both", "left", "right"), ("intruders", "undecided")
THRESHOLD = 0.5  # the |cosine| below which a direction is new
EXTRA = 10  # singular vectors of W past k whose cosines are taken one by one
STRIDE, LOOKS = 16, 12  # Lanczos steps between looks; looks in all, of which a vector spread evenly needs two
GRID = 32  # pieces of a gap between Ritz values
POLISHES = 8  # of Rayleigh quotient iteration, which gets there in three or four, or not at all
CONVERGED, ROUNDING = 1e-10, 1e-14  # residual of a top eigenpair over its eigenvalue, or over the largest one
RESOLVED = 1e-6  # of any other over its eigenvalue: below the gaps, about 1 / n, above rounding down to 3e-5 sigma_1
WEIGHT_ERROR = 1e-12  # of the first entry of a tridiagonal eigenvector, on the safe side
EPSILON = float(np.finfo(np.float64).eps)
Array = np.ndarray
Apply = Callable[[Array], Array]


@dataclass(frozen=True)
class BaseGeometry:
    """One module's deltas against its weight: plain lists of one value an adapter.

    shape: [out, in]. k: as asked, cut to W's rank. weight_square, squares: |W|_F^2, |dW|_F^2. both, left, right:
    |U_k^T dW V_k|_F^2, |U_k^T dW|_F^2 and |dW V_k|_F^2 over |dW|_F^2, U_k and V_k the top k singular vectors of W.
    relative_sigma: sigma_1(dW) / sigma_1(W). intruders: how many of the top k left singular vectors of W + dW are
    new; undecided: of how many more that could not be told. From both on None where the delta or W is zero.
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
    undecided: list[int | None]


def module_base_geometry(
    weight: Tensor, factors: Sequence[Factors], k: int = TOP_K, threshold: float = THRESHOLD
) -> BaseGeometry:
    """All adapters at one module against its weight: out x in, M x (out x r_m, r_m x in) -> BaseGeometry.

    New, or an intruder dimension (Shuttleworth et al. 2024, 2410.21228): a left singular vector of W + dW whose
    |cosine| with every left singular vector of W is below ``threshold``. A singular value below about 1e-6 sigma_1 is
    zero and has no direction, so what lies in W's left null space is near none. Where singular values are equal, to
    about 1e-6, any vector of their span is one of W's. ValueError, one line: no adapter, k < 1, a threshold outside
    (0, 1], shapes that do not fit, NaN or inf.
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
        return square, None, None, None, None, None, None
    inside, outside = base.coordinates(b)
    left, right = base.u[:, : base.k].T @ inside, a @ base.v[:, : base.k]
    parts = (left @ right, left @ upper_a.T, upper_b @ right)
    shares = [min(1.0, float(np.sum(part**2)) / square) for part in parts]
    y = base.top_of_sum(inside, outside, a)
    known = base.u.T @ y
    verdicts = [
        False if nearest >= threshold else _is_new(base.gram, rest, threshold**2, base.floor)
        for nearest, rest in zip(np.abs(known).max(axis=0), (y - base.u @ known).T, strict=True)
    ]
    return square, *shares, float(sigma[0] / base.sigma[0]), verdicts.count(True), verdicts.count(None)


class _Base:
    """What all adapters share of one weight W = Q C: Q out x n orthonormal, C n x in; Q is left out where out <= in.

    gram: C C^T; eigenvalues below ``floor`` are zero. sigma, u, v: the top k + EXTRA singular values and vectors of C
    (n x K, in x K), or as many as its rank. k: cut to it.
    """

    def __init__(self, weight: Array, k: int) -> None:
        self.n = min(weight.shape)
        self.qr = torch.geqrf(torch.from_numpy(weight)) if len(weight) > self.n else None
        self.core = self.qr[0][: self.n].triu().numpy() if self.qr else weight
        self.gram = self.core @ self.core.T
        values, vectors = _top(lambda x: self.gram @ x, self.n, k + EXTRA)
        self.floor = max(weight.shape) * EPSILON * float(values[0])
        rank = int(np.sum(values > self.floor))
        self.k, self.sigma, self.u = min(k, rank), np.sqrt(values[:rank]), vectors[:, :rank]
        self.v = self.core.T @ self.u / self.sigma

    def coordinates(self, b: Array) -> tuple[Array, Array]:
        """Q^T b, n x r, and what b has outside W's columns, r x r or less, in a basis of its own."""
        turned = torch.ormqr(*self.qr, torch.from_numpy(b), transpose=True).numpy() if self.qr else b
        return turned[: self.n], np.linalg.qr(turned[self.n :]).R

    def top_of_sum(self, inside: Array, outside: Array, a: Array) -> Array:
        """Q^T of the top k left singular vectors of W + b @ a, n x k, or as many as its rank."""
        b = np.concatenate([inside, outside])
        p = b @ (a @ a.T) / 2
        p[: self.n] += self.core @ a.T

        def apply(x: Array) -> Array:
            image = p @ (b.T @ x) + b @ (p.T @ x)
            image[: self.n] += self.gram @ x[: self.n]
            return image

        values, vectors = _top(apply, len(b), self.k)
        return vectors[: self.n, values > self.floor * max(1.0, values[0] / self.sigma[0] ** 2)]


def _is_new(h: Array, z: Array, cutoff: float, floor: float) -> bool | None:
    """Whether <z, u>^2 < cutoff for all eigenvectors u of h with eigenvalues above ``floor``.

    These squares are the atoms of the spectral measure of z, of which m steps of Lanczos from z give the Gauss
    quadrature (Golub & Meurant 2010, chapter 6). True where the bound on every atom is below the cutoff; False where
    an eigenvector was found that reaches it; else None. Once the Krylov space is exhausted the weights are the atoms.
    """
    size = float(z @ z)
    if size < cutoff:
        return True
    for theta, rotation, residual, basis in islice(_lanczos(lambda x: h @ x, z), LOOKS):
        weights = size * (np.abs(rotation[0]) + WEIGHT_ERROR) ** 2
        atoms = np.where(theta > floor, weights, 0.0)
        if (_largest_atom(theta, weights, floor) if residual.any() else atoms.max()) < cutoff:
            return True
        if np.any((atoms >= cutoff) & (residual <= RESOLVED * theta)):
            return False
        heaviest = basis.T @ rotation[:, np.argmax(atoms)]
    return False if (_eigenvector(h, heaviest, floor) @ z) ** 2 >= cutoff else None


def _largest_atom(theta: Array, weights: Array, floor: float) -> float:
    """An upper bound on all atoms above ``floor`` of a measure with these Gauss nodes, ascending, and weights.

    An atom at x is at most the Christoffel function 1 / K(x), K(x) = sum_j l_j(x)^2 / w_j with the nodes' Lagrange
    polynomials l_j (Akhiezer 1965, chapter 2). Between two nodes log |l_j| is a sum of logarithms of distances to
    nodes, so concave, and on a piece of the gap |l_j| is at least the smaller of its values at the ends: these bound
    K from below on the whole piece, not on a grid alone. Outside all nodes the outermost one's |l_j| is at least 1.
    """
    distance = np.abs(theta[:, None] - theta) + np.eye(len(theta))
    scale = np.log(np.maximum(distance, floor)).sum(axis=1)  # a distance too large only loosens the bound
    ends = (1 - np.cos(np.linspace(0, np.pi, GRID + 1))) / 2  # dense near the nodes, where a bound is nearly reached
    x = theta[:-1, None] + ends * np.diff(theta)[:, None]
    logs = np.log(np.maximum(np.abs(x[:, 1:-1, None] - theta), 1e-300))
    lagrange = np.full((*x.shape, len(theta)), -np.inf)
    lagrange[:, 1:-1] = logs.sum(axis=2, keepdims=True) - logs - scale
    gap = np.arange(len(x))
    lagrange[gap, 0, gap] = lagrange[gap, -1, gap + 1] = 0.0
    least = np.minimum(lagrange[:, :-1], lagrange[:, 1:])
    kernel = np.exp(np.minimum(2 * least - np.log(weights), 600.0)).sum(axis=2)  # exp of more overflows
    inside = kernel[x[:, 1:] > floor].min(initial=np.inf)
    return float(max(1 / inside, weights[-1], weights[0] if theta[0] > floor else 0.0))


def _eigenvector(h: Array, x: Array, floor: float) -> Array:
    """The eigenvector, of an eigenvalue above ``floor``, that Rayleigh quotient iteration reaches from x, or zero."""
    for _ in range(POLISHES):
        image = h @ x
        value = float(x @ image)
        if np.linalg.norm(image - value * x) <= RESOLVED * value:
            return x if value > floor else 0 * x
        x = np.linalg.solve(h - (value + floor) * np.eye(len(h)), x)  # just off the value, so never singular
        x /= np.linalg.norm(x)
    return 0 * x


def _lanczos(apply: Apply, start: Array, more: np.random.Generator | None = None) -> Iterator[tuple[Array, ...]]:
    """Lanczos on a symmetric n x n operator, each vector orthogonalised twice against all before it.

    Yields every STRIDE steps, and at the end: Ritz values, ascending; their vectors in the basis, m x m; residuals, all
    zero at the end; the basis, m x n. It ends with the Krylov space; with ``more`` it goes on from new directions.
    """
    n = len(start)
    basis = np.empty((n, n))  # memory is taken as rows are written
    basis[0] = start / np.linalg.norm(start)
    alpha, beta = list[float](), list[float]()
    for m in range(1, n + 1):
        image = apply(basis[m - 1])
        alpha.append(float(basis[m - 1] @ image))
        following, norm = _outside(image, basis[:m])
        exhausted = m == n or norm <= n * EPSILON * max(map(abs, (*alpha, *beta)))
        ended = m == n or (exhausted and more is None)
        coupling = 0.0 if exhausted else norm
        if ended or m % STRIDE == 0:
            theta, rotation = scipy.linalg.eigh_tridiagonal(alpha, beta)
            yield theta, rotation, coupling * np.abs(rotation[-1]), basis[:m]
        if ended:
            return
        beta.append(coupling)
        if exhausted and more is not None:
            following, norm = _outside(more.standard_normal(n), basis[:m])
        basis[m] = following / norm


def _outside(x: Array, held: Array) -> tuple[Array, float]:
    x = x - (held @ x) @ held
    x -= (held @ x) @ held
    return x, float(np.linalg.norm(x))


def _top(apply: Apply, n: int, k: int) -> tuple[Array, Array]:
    """The min(k, n) largest eigenvalues, descending, of a positive semidefinite operator, and their vectors."""
    generator, last = np.random.default_rng(0), slice(None, -min(k, n) - 1, -1)
    for theta, rotation, residual, basis in _lanczos(apply, generator.standard_normal(n), generator):
        vectors = basis.T @ rotation[:, last]
        if len(theta) > k and np.all((residual <= np.maximum(CONVERGED * theta, ROUNDING * theta[-1]))[last]):
            break
    return theta[last], vectors


def summarise_base(names: Sequence[str], modules: Mapping[str, BaseGeometry]) -> dict:
    """Join per-module results into the ``base`` part of the results, whatever the order of ``modules``.

    Returns k, the largest of a module; threshold; adapters, layers, projections and modules: an entry an adapter (and
    layer, projection or module) with the keys of ``_entry``; chance, the shares expected of a random direction in the
    space of all these weights. None where undefined. ValueError: no module, or unlike adapters or thresholds.
    """
    if not modules:
        raise ValueError("base geometry of no module: the adapters share no target")
    ordered = {name: modules[name] for name in sorted(modules, key=natural_key)}
    every = list(ordered.values())
    if {(len(found.squares), found.threshold) for found in every} != {(len(names), every[0].threshold)}:
        raise ValueError(f"modules differ in threshold, or do not hold the {len(names)} adapters that are named")

    def entries(groups: Sequence[tuple[dict, list[BaseGeometry]]]) -> list[dict]:
        return [{"name": name, **label, **_entry(m, held)} for m, name in enumerate(names) for label, held in groups]

    where = places(ordered)

    def parts(key: str) -> list[dict]:
        return entries([(label, [every[row] for row in rows]) for label, rows in grouped(where.values(), key)])

    labels = [{"module": name, **where[name]} for name in ordered]
    sizes = [(found.k, *found.shape) for found in every if found.k]
    total = sum(out * in_ for _, out, in_ in sizes)
    held = [sum(k * k for k, _, _ in sizes), sum(k * in_ for k, _, in_ in sizes), sum(k * out for k, out, _ in sizes)]
    return {
        "k": max(found.k for found in every),
        "threshold": every[0].threshold,
        "adapters": entries([({}, every)]),
        "layers": parts("layer"),
        "projections": parts("projection"),
        "modules": entries([(label, [found]) for label, found in zip(labels, every, strict=True)]),
        "chance": {part: size / total if total else None for part, size in zip(SHARES, held, strict=True)},
    }


def _entry(m: int, modules: Sequence[BaseGeometry]) -> dict:
    """One adapter over some modules; zero_modules, where the delta or the weight is zero, enter relative_norm alone.

    Shares are sums of |P dW|^2 over those of |dW|^2, relative_norm the root of the sum of |dW|^2 over that of |W|^2.
    """
    alive = [found for found in modules if found.intruders[m] is not None]
    weight = math.fsum(found.weight_square for found in modules)
    energy = math.fsum(found.squares[m] for found in alive)
    parts = {part: math.fsum(getattr(found, part)[m] * found.squares[m] for found in alive) for part in SHARES}
    return {
        **{part: held / energy if alive else None for part, held in parts.items()},
        "relative_norm": math.sqrt(math.fsum(found.squares[m] for found in modules) / weight) if weight else None,
        "relative_sigma_median": float(np.median([found.relative_sigma[m] for found in alive])) if alive else None,
        **{part: sum(getattr(found, part)[m] for found in alive) if alive else None for part in COUNTS},
        "modules": len(modules),
        "zero_modules": len(modules) - len(alive),
    }
