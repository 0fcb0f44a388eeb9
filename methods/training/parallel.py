"""Data-parallel training: each worker computes part of every optimiser step's units, gradients are summed.

Torch's DistributedDataParallel is not used: it averages over workers, while an objective's sum is divided by the
count (tokens, pairs) of the whole optimiser step. A LoRA's gradients are small, so overlapping communication would
gain nothing. The caller opens the process group; Ray Train does (gloo on CPUs, nccl on GPUs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

STOP = -1


class Stopped(RuntimeError):
    """Rank 0 ended the training before its last step."""


@dataclass(frozen=True)
class Group:
    """The workers of one training; with one worker every method is the identity."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def add(self, tensors: Sequence[Tensor]) -> None:
        """All-reduce: replace each tensor by its sum over the workers, the same bytes on all. All of one dtype."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any worker."""
        if self.size == 1:
            return flag
        any_set = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(any_set, op=dist.ReduceOp.MAX)
        return bool(any_set.item())

    def tell(self, value: int) -> int:
        """Broadcast rank 0's ``value``. Other ranks raise ``Stopped`` if it is ``STOP``."""
        if self.size == 1:
            return value
        buffer = torch.tensor(value, device=self.device)
        dist.broadcast(buffer, src=0)
        received = int(buffer.item())
        if received == STOP and self.rank:
            raise Stopped
        return received

    def copy(self, tensors: Sequence[Tensor]) -> None:
        """Broadcast rank 0's tensors in place."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, src=0)


def group(workers: int, device: str) -> Group:
    """The open process group; ``ValueError`` if its size is not ``workers``."""
    size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if size != workers:
        raise ValueError(f"workers: the training needs {workers}, the process group has {size}")
    return Group(dist.get_rank(), size, device) if size > 1 else Group(device=device)
