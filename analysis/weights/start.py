"""An adapter's distance from its initialisation: A against the initial A0.

If A hardly moves, the input side of dW = s B A stays in the row space of A0 whatever was learned, so adapters with one
initial A share it and adapters with different ones do not. Where B was drawn and A began at zero (start b) the same
holds of the output side and the column space of B0: it is measured on the transposed delta, whose A is B transposed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from models.adapter import Factors, Start
from models.module_names import natural_key


@dataclass(frozen=True)
class Left:
    """Squared Frobenius norms at one module or summed over several: A - A0, A0, dW within the row space of A0, dW.

    With start b: B - B0, B0, both with the delta's scale, dW within the column space of B0, dW.
    """

    moved: float
    start: float
    inside: float
    whole: float

    @property
    def a_moved_rel(self) -> float | None:
        """|A - A0| / |A0|, with start b |B - B0| / |B0|; None where that start is zero."""
        return math.sqrt(self.moved / self.start) if self.start > 0 else None

    @property
    def start_share(self) -> float | None:
        """|dW P|^2 / |dW|^2 with P onto the row space of A0, with start b |P dW|^2 / |dW|^2 with P onto the column
        space of B0; None for a zero delta."""
        return min(1.0, self.inside / self.whole) if self.whole > 0 else None


def left_start(factors: Factors, initial: Tensor, start: Start = "a") -> Left:
    """One module's delta (out x r, r x in) against the initial value of the factor that was drawn.

    ``initial`` is A's, r x in, or with ``start`` b that of B, out x r, with the delta's scale as ``factors.b`` has it.
    ValueError if the shapes differ.
    """
    own, of, size = (factors.a, "A", "r, in") if start == "a" else (factors.b, "B", "out, r")
    if own.shape != initial.shape:
        raise ValueError(f"the initial {of} is {tuple(initial.shape)}, the adapter's {tuple(own.shape)} ({size})")
    if start == "b":
        factors, initial = factors.transposed, initial.T
    a, a0 = factors.a.double(), initial.double()
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
    """Each adapter's sums over the modules, independent of their order; None if its start is not known."""
    columns = zip(*(modules[name] for name in sorted(modules, key=natural_key)), strict=True)
    return [_sum([one for one in column if one is not None]) for column in columns]


def _sum(parts: Sequence[Left]) -> Left | None:
    return Left(*map(math.fsum, zip(*map(astuple, parts), strict=True))) if parts else None
