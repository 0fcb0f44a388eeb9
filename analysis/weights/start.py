"""An adapter's distance from its initialisation: A against the initial A0.

If A hardly moves, the input side of dW = s B A stays in the row space of A0 whatever was learned, so adapters with one
initial A share it and adapters with different ones do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from models.adapter import Factors
from models.module_names import natural_key


@dataclass(frozen=True)
class Left:
    """Squared Frobenius norms at one module or summed over several: A - A0, A0, dW within the row space of A0, dW."""

    moved: float
    start: float
    inside: float
    whole: float

    @property
    def a_moved_rel(self) -> float | None:
        """|A - A0| / |A0|; None where A0 is zero."""
        return math.sqrt(self.moved / self.start) if self.start > 0 else None

    @property
    def start_share(self) -> float | None:
        """|dW P|^2 / |dW|^2 with P onto the row space of A0; None for a zero delta."""
        return min(1.0, self.inside / self.whole) if self.whole > 0 else None


def left_start(factors: Factors, a0: Tensor) -> Left:
    """One module's delta (out x r, r x in) against its initial A, r x in. ValueError if the shapes differ."""
    a, a0 = factors.a.double(), a0.double()
    if a.shape != a0.shape:
        raise ValueError(f"the initial A is {tuple(a0.shape)}, the adapter's {tuple(a.shape)} (r, in)")
    basis = torch.linalg.svd(a0, full_matrices=False)
    rank = int((basis.S / max(a0.shape) > torch.finfo(torch.float64).eps * basis.S[0]).sum())
    within = a @ basis.Vh[:rank].T
    gram = factors.b.double().T @ factors.b.double()
    return Left(
        moved=float((a - a0).square().sum()),
        start=float(a0.square().sum()),
        inside=float((gram * (within @ within.T)).sum()),
        whole=float((gram * (a @ a.T)).sum()),
    )


def over_modules(modules: Mapping[str, Sequence[Left | None]]) -> list[Left | None]:
    """Each adapter's sums over the modules, independent of their order; None if its initial A is not known."""
    columns = zip(*(modules[name] for name in sorted(modules, key=natural_key)), strict=True)
    return [_sum([one for one in column if one is not None]) for column in columns]


def _sum(parts: Sequence[Left]) -> Left | None:
    return Left(*map(math.fsum, zip(*map(astuple, parts), strict=True))) if parts else None
