"""The data that every objective reads.

Dimension letters: n rows, t completion positions. Torch is imported for type checking only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rollout:
    """One completion of a prompt, as token ids, with its reward and its problem's index.

    A verifier's reward is 0 or 1; some objectives take any real number. A row is right if its reward is above 0.
    ``teacher`` names the model that wrote it, for pairs within one teacher's rollouts. ``group_mean`` is the mean
    reward of all rollouts of its problem, also those not given here; None: the mean of those given.
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    reward: float
    group: int
    teacher: str = ""
    group_mean: float | None = field(default=None, compare=False)  # of its group, not of the row

    @property
    def tokens(self) -> tuple[Sequence[int], Sequence[int]]:
        """(prompt ids, completion ids)"""
        return self.prompt_ids, self.completion_ids

    @property
    def right(self) -> bool:
        return self.reward > 0


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    ``logp`` n x t: log pi(y_t | x, y_<t) in nats. ``mask`` n x t, bool: True on completion tokens, False on
    padding (prompts are not included). ``reward`` n. ``group_mean`` n: mean reward of all rollouts of the
    row's problem, not only of those in the batch. ``reference`` n x t: log pi_base(y_t | x, y_<t), or None.
    Where the view is pairs, rows 2i are chosen and rows 2i + 1 rejected. Values outside the mask never count.
    One-line ``ValueError`` for any other shape, which would be broadcast silently.
    """

    logp: Tensor
    mask: Tensor
    reward: Tensor
    group_mean: Tensor
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.logp.shape)
        if len(shape) != 2:
            raise ValueError(f"batch: logp has shape {shape}, not rows x completion tokens")
        for name, wanted in (("mask", shape), ("reward", shape[:1]), ("group_mean", shape[:1]), ("reference", shape)):
            value = getattr(self, name)
            actual = wanted if value is None else tuple(value.shape)
            if actual != wanted:
                raise ValueError(f"batch: {name} has shape {actual}, beside logp of {shape} it needs {wanted}")

    @property
    def nll(self) -> Tensor:
        """n x t, nats: -log pi(y_t), zero outside the mask whatever ``logp`` holds there."""
        return (-self.logp).masked_fill(~self.mask, 0.0)

    @property
    def probability(self) -> Tensor:
        """n x t: pi(y_t), zero outside the mask."""
        return (-self.nll).exp().masked_fill(~self.mask, 0.0)

    @property
    def logratio(self) -> Tensor:
        """n x t, nats: log pi(y_t) - log pi_base(y_t), zero outside the mask. ``ValueError`` without a reference."""
        if self.reference is None:
            raise ValueError("batch: the objective reads log pi_base, and there is no reference")
        return (self.logp - self.reference).masked_fill(~self.mask, 0.0)

    def paired(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Split one value per row into (chosen, rejected), n / 2 each; ``ValueError`` for an odd number of rows."""
        if len(values) % 2:
            raise ValueError(f"batch: {len(values)} rows are no pairs of a chosen row (2i) and a rejected one (2i + 1)")
        return values[0::2], values[1::2]

    @property
    def lengths(self) -> Tensor:
        """n: completion tokens per row."""
        return self.mask.sum(dim=1)
