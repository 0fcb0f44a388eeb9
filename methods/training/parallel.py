"""Data-parallel training: each worker computes part of every optimiser step's units, gradients are summed.

Torch's DistributedDataParallel is not used: it averages over workers, while an objective's sum is divided by the
count (tokens, pairs) of the whole optimiser step. A LoRA's gradients are small, so overlapping communication would
gain nothing. The caller opens the process group; Ray Train does (gloo on CPUs, nccl on GPUs).

A base that no worker should hold whole is shared out among them by FSDP2: a part of each layer's frozen weights each. A
layer is gathered before its forward and its backward pass and given up after it, which copies bytes and computes
nothing, so the numbers are those of workers that hold the base whole. Embeddings, the output head and norms outside the
layers are whole on each worker, and so are the adapter's factors, which are attached later and are none of FSDP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from models.base import load
from models.head import backbone

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


def load_sharded(folder: Path, precision: str, attention: str, workers: Group) -> PreTrainedModel:
    """As :func:`models.base.load`, with a part of each layer on each of ``workers``, all of which call this.

    They read the base one after another: each has all of it in the machine's memory until its part is on its device.
    ``ValueError`` if the model is not made of layers that could be gathered one at a time.
    """
    for turn in range(workers.size):
        if turn == workers.rank:
            model = shard(load(folder, precision, attention), workers)
        workers.any(False)  # returns once all have called it
    return model


def shard(model: PreTrainedModel, workers: Group) -> PreTrainedModel:
    """The model with this worker's part of each layer, on its device; workers do not wait for each other."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(f"training.shard_base: {type(model).__name__} is not made of layers: take another base")
    mesh = init_device_mesh(workers.device, (workers.size,))
    for layer in reversed(layers):  # inner ones first
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    whole = backbone(model)
    fully_shard(whole, mesh=mesh, ignored_params=set(whole.parameters()))  # shares nothing out: it overlaps the layers
    return model.to(workers.device)  # type: ignore[arg-type]  # Transformers' wrapper hides its types
