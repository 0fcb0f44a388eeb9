"""Chance levels of the pair measures for adapters of given shapes.

*Ambient*: two unrelated random deltas. *Given the shared A*: two deltas with unrelated random B and the same A, so
that both input sides lie in one r-dimensional row space before any training. Where the adapters began from a random B
and A = 0 (start b), it is unrelated random A on the same B, measured on the transposed deltas: input and output change
places.

No full-size delta is drawn. With a Gaussian B (out x r) and its thin QR ``B = Q R``, Q is uniform
and independent of R, and R has normal entries above a chi diagonal (Bartlett; Muirhead 1982, theorem 3.2.14).
So output sides are unrelated uniform subspaces in both cases, and input sides need only the SVD of
``R Ra.T``, where ``a.T = Qa Ra``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from analysis.weights.geometry import TOP_K
from analysis.weights.summary import defined, mean, median, overlap
from models.adapter import Factors, Start
from models.module_names import natural_key

DRAWS = 32
TRANSPOSED = {"left": "right", "right": "left", "u1": "v1", "v1": "u1"}


def gaussian_r(rows: int, columns: int, draws: int, generator: Generator) -> Tensor:
    """R of the thin QR of a rows x columns standard Gaussian: draws x min(rows, columns) x columns."""
    size = min(rows, columns)
    upper = torch.randn(draws, size, columns, generator=generator, dtype=torch.float64).triu(1)
    seed = int(torch.randint(2**62, (), generator=generator))  # torch cannot draw chi-squared from a given generator
    squares = np.random.default_rng(seed).chisquare(rows - np.arange(size), (draws, size))
    upper.diagonal(dim1=1, dim2=2).copy_(torch.from_numpy(np.sqrt(squares)))
    return upper


def random_subspaces(d: int, k: int, draws: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Two uniform k-dimensional subspaces of R^d, ``draws`` times; 1 <= k <= d.

    Returns principal angles (draws x k, degrees, ascending) and |<first, first'>| of their first vectors
    (draws). By symmetry one is the span of the first k axes; the other is the column space of a Gaussian, of which
    the first k rows are drawn and the rest only through their R.
    """
    above = torch.randn(draws, k, k, generator=generator, dtype=torch.float64)
    below = gaussian_r(d - k, k, draws, generator)
    cross = torch.linalg.qr(torch.cat([above, below], dim=1)).Q[:, :k]
    return _angles(cross), cross[:, 0, 0].abs()


def ambient(out: int, in_: int, k: int, draws: int, generator: Generator) -> dict[str, Tensor]:
    """Unrelated deltas out x in: left, right (draws x k, degrees, ascending) and u1, v1 (draws)."""
    left, u1 = random_subspaces(out, k, draws, generator)
    right, v1 = random_subspaces(in_, k, draws, generator)
    return {"left": left, "right": right, "u1": u1, "v1": v1}


def shared_a(a: Tensor, out: int, k: int, draws: int, generator: Generator) -> dict[str, Tensor]:
    """Unrelated Gaussian B on one A (r x in): the same keys and shapes as ``ambient``. k <= the rank of a."""
    left, u1 = random_subspaces(out, k, draws, generator)
    rb = gaussian_r(out, a.shape[0], 2 * draws, generator)
    _, ra = torch.linalg.qr(a.double().T, mode="r")
    top = torch.linalg.svd(rb @ ra.T, full_matrices=False).Vh[:, :k]
    cross = top[:draws] @ top[draws:].transpose(1, 2)
    return {"left": left, "right": _angles(cross), "u1": u1, "v1": cross[:, 0, 0].abs()}


def floors(
    modules: Mapping[str, Factors], k: int = TOP_K, *, generator: Generator, draws: int = DRAWS, start: Start = "a"
) -> dict:
    """Both chance levels over the given modules: each draw is summarised like a pair, then averaged over draws.

    ``modules``: one adapter's factors, of which shapes, ranks and A are used, of B only the height. Returns draws,
    ``ambient`` and ``shared_a``, each {cosine, angle_min_median_deg, angle_max_median_deg,
    right_angle_min_median_deg, right_angle_max_median_deg, u1, v1, overlap, right_overlap}. cosine is the root
    mean square of the global cosine, whose mean is 0, in closed form. Modules with A = 0 are left out;
    None if none remains. With ``start`` b, A and B change places in all of this.
    """
    if start == "b":
        modules = {name: factors.transposed for name, factors in modules.items()}
    drawn: dict[str, list[dict[str, Tensor]]] = {"ambient": [], "shared_a": []}
    grams = []
    for name in sorted(modules, key=natural_key):
        a, out = modules[name].a.double(), modules[name].b.shape[0]
        rank = min(out, int(torch.linalg.matrix_rank(a)))
        if rank == 0:
            continue
        size = min(k, rank)
        drawn["ambient"].append(ambient(out, a.shape[1], size, draws, generator))
        drawn["shared_a"].append(shared_a(a, out, size, draws, generator))
        grams.append((out, a.shape[1], a @ a.T))
    if start == "b":
        drawn = {
            kind: [{TRANSPOSED[key]: values for key, values in one.items()} for one in found]
            for kind, found in drawn.items()
        }
    cosines = expected_cosines(grams)
    return {
        "draws": draws,
        **{kind: {"cosine": cosines[kind], **_summary(by_module)} for kind, by_module in drawn.items()},
    }


def expected_cosines(grams: Sequence[tuple[int, int, Tensor]]) -> dict[str, float | None]:
    """Root mean square of the cosine of stacked random deltas, from (out, in, A A.T) per module.

    Given A and Gaussian B, E <dW, dW'>^2 = sum out tr((A A.T)^2) and E |dW|^2 = sum out tr(A A.T); with
    unrelated A, E <dW, dW'>^2 = sum w^2 / (out in) for modules of squared norm w. A ratio of expectations.
    """
    weights = [out * float(torch.trace(gram)) for out, _, gram in grams]
    total = math.fsum(weights)
    if total == 0:
        return {"ambient": None, "shared_a": None}
    ambient_square = math.fsum(w * w / (out * in_) for w, (out, in_, _) in zip(weights, grams, strict=True))
    shared_square = math.fsum(out * float(gram.square().sum()) for out, _, gram in grams)
    return {"ambient": math.sqrt(ambient_square) / total, "shared_a": math.sqrt(shared_square) / total}


def expected_cosine_of_shared_b(modules: Sequence[tuple[Tensor, float, float]]) -> float | None:
    """Root mean square of the cosine of stacked random deltas on given B, from (B.T B, tr S, tr S^2) per module.

    Inner products are tr(dW S dW'.T), plain ones with S = 1. Given B and Gaussian A, E <dW, dW'>^2 = sum tr((B.T B)^2)
    tr(S^2) and E |dW|^2 = sum tr(B.T B) tr(S). A ratio of expectations; None where it is 0 / 0.
    """
    total = math.fsum(float(torch.trace(gram)) * trace for gram, trace, _ in modules)
    square = math.fsum(float(gram.square().sum()) * squared for gram, _, squared in modules)
    return math.sqrt(square) / total if total > 0 else None


def _angles(cross: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos(torch.linalg.svdvals(cross).clamp(max=1.0)))


def _summary(draws: Sequence[dict[str, Tensor]]) -> dict[str, float | None]:
    """Medians and means over modules within each draw, then the mean over draws."""

    def over_draws(reduce: Callable[[np.ndarray], np.ndarray], values: Sequence[np.ndarray]) -> float | None:
        return defined(mean(reduce(np.stack(values))[None].T))[0] if values else None

    sides = {side: [module[side].numpy() for module in draws] for side in ("left", "right", "u1", "v1")}
    return {
        "angle_min_median_deg": over_draws(median, [angles[:, 0] for angles in sides["left"]]),
        "angle_max_median_deg": over_draws(median, [angles[:, -1] for angles in sides["left"]]),
        "right_angle_min_median_deg": over_draws(median, [angles[:, 0] for angles in sides["right"]]),
        "right_angle_max_median_deg": over_draws(median, [angles[:, -1] for angles in sides["right"]]),
        "u1": over_draws(mean, sides["u1"]),
        "v1": over_draws(mean, sides["v1"]),
        "overlap": over_draws(mean, [overlap(angles) for angles in sides["left"]]),
        "right_overlap": over_draws(mean, [overlap(angles) for angles in sides["right"]]),
    }
