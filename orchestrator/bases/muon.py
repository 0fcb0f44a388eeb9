"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) in the precision of the weights.

``torch.optim.Muon`` orthogonalises in bfloat16 whatever the weights' precision. Processors without bfloat16 arithmetic
(AVX2 only) take 17 times as long for that as for float32, and it adds rounding to float32 weights. Here all matrices
of one shape are orthogonalised together, in their own precision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, as in the reference
ITERATIONS = 5
TINY = 1e-7


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised Nesterov momentum, with decoupled weight decay.

    The step is scaled by ``0.2 * sqrt(max(rows, columns))``, so that AdamW's learning rates apply (Liu et al. 2025,
    2502.16982, section 2.2). Parameters are matrices; ``ValueError`` for any other.
    """

    def __init__(
        self, parameters: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(f"Muon takes matrices, not a parameter of shape {tuple(p.shape)}")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for shape, parameters in shapes.items():
                updates = orthogonal(torch.stack([self._nesterov(p, group["momentum"]) for p in parameters]))
                for p, update in zip(parameters, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _nesterov(self, p: torch.Tensor, momentum: float) -> torch.Tensor:
        assert p.grad is not None
        kept = self.state[p].setdefault("momentum", torch.zeros_like(p))
        kept.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(kept, momentum)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """``matrices`` (n x rows x columns) with singular values brought near 1 (.7 to 1.2), in their precision.

    Five Newton-Schulz iterations of the odd quintic; a zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=TINY)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
