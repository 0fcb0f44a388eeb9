"""How a training moves: the way its elements go, how much of it later steps undo, and the signal in its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

PATH = "path"  # beside the moments in an optimiser's state of a parameter


class Motion:
    """Follows the ``parameters`` of an AdamW ``optimizer`` with first decay rate ``beta`` over its steps.

    The way of each element, ``sum_t |Delta_t|``, is kept in the optimiser's state, so that it is saved, restored and
    spread with the moments. ``power`` is the running mean of the gradient's squared norm, before bias correction.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, beta: float) -> None:
        self.parameters: list[Tensor] = [*parameters]
        self.optimizer, self.beta = optimizer, beta
        self.moved: list[Tensor] = [torch.empty_like(parameter) for parameter in self.parameters]
        self.elements = sum(parameter.numel() for parameter in self.parameters)
        self.power = 0.0

    @torch.no_grad()
    def begin(self) -> None:
        """Remember where the parameters stand, before an optimiser step."""
        torch._foreach_copy_(self.moved, self.parameters)

    @torch.no_grad()
    def end(self, step: int, norm: float, displacement: float) -> dict[str, float | None]:
        """What is logged of optimiser step ``step`` (from 1) once it is done.

        ``norm`` is that of the gradient that the optimiser got, ``displacement`` the Frobenius norm of
        ``theta_t - theta_0`` over all parameters.

        - ``path``: root mean square over the elements of ``sum_s |Delta_s|``, s = 1..t, in units of a parameter.
        - ``undone``: ``1 - |sum_s Delta_s| / |sum_s |Delta_s||``, Frobenius norms over all elements, 0 to 1: 0 if every
          element always moved the same way, 1 if all came back; None before anything moved.
        - ``signal``: ``|m|^2 / p``, where m and p are the means of the gradient and of its squared norm with Adam's
          weights ``beta^(t-s)``, 0 to 1. 1 for a constant gradient; for independent noise without a mean it is
          ``(1 - beta) / (1 + beta) * (1 + beta^t) / (1 - beta^t)`` on average. None if all gradients were zero. m is
          Adam's first moment. p stands in for Adam's second moment because both means must be over the same steps:
          otherwise a gradient that merely shrinks would look like noise.
        """
        torch._foreach_sub_(self.moved, self.parameters)
        torch._foreach_abs_(self.moved)
        states = [self.optimizer.state[parameter] for parameter in self.parameters]
        paths = [held.setdefault(PATH, torch.zeros_like(moved)) for held, moved in zip(states, self.moved, strict=True)]
        torch._foreach_add_(paths, self.moved)
        norms = [torch._foreach_norm(part, 2, torch.float64) for part in (paths, [held["exp_avg"] for held in states])]
        path, mean = torch.stack([torch.stack(part).norm() for part in norms]).tolist()
        self.power = self.beta * self.power + (1 - self.beta) * norm**2
        seen = self.power * (1 - self.beta**step)  # of the two corrections of the mean, one cancels with that of power
        return {
            "path": path / math.sqrt(self.elements),
            "undone": max(0.0, 1 - displacement / path) if path else None,
            "signal": min(1.0, mean**2 / seen) if seen else None,
        }


def clipped(norm: float, limit: float) -> float:
    """The norm of a gradient of ``norm`` once ``torch.nn.utils.clip_grads_with_norm_`` has clipped it to ``limit``."""
    return norm * min(1.0, limit / (norm + 1e-6))
