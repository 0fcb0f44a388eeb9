"""Whether a base fits one GPU, from the study's settings: a base that does not is refused before anything starts.

What is counted is what no setting lowers: the base's weights, and in a training the adapter with its gradient and its
optimiser state. Activations are not: out of memory, a training halves its micro-batch.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from execution.errors import UserError
from orchestrator.config.study import Study
from orchestrator.planning.cost import Cost, estimate, weights_held
from orchestrator.planning.memory import ADAPTER_BYTES, BYTES
from orchestrator.runtime.device import cards

CONTEXT_GIB = 1.0  # of a GPU, for CUDA's own context and kernels
GIB = 2**30


@dataclass(frozen=True)
class Need:
    """What holds the base on a GPU: bytes of each of its parameters, GiB beside them, and GiB that it may take."""

    what: str
    bytes_each: float
    beside: float
    room: float

    def gib(self, parameters: float) -> float:
        return parameters * self.bytes_each / GIB + self.beside

    @property
    def most(self) -> float:
        """The most parameters that fit."""
        return max(0.0, self.room - self.beside) * GIB / self.bytes_each


def gpu_memory(study: Study, here: bool = True) -> float | None:
    """GiB of one GPU: as the study says, else of this machine's smallest if it runs ``here``; None if unknown."""
    if study.placement.gpu_memory_gib is not None or not here or not cards():
        return study.placement.gpu_memory_gib
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(float(mib) for mib in told.split()) / 1024
    except (OSError, ValueError, subprocess.SubprocessError):  # no such tool, or a GPU that does not tell
        return None


def check_memory(study: Study, memory: float | None) -> None:
    """``UserError`` if the base does not fit a GPU of ``memory`` GiB. Not checked: None, a base without a shape."""
    study = study.shaped()
    cost = None if memory is None else estimate(study)
    if memory is None or cost is None:
        return
    needs = _needs(study, cost, memory)
    tightest = min(needs, key=lambda need: need.most)
    if cost.parameters > tightest.most:
        raise UserError(
            f"base: {study.base.name} needs {tightest.gib(cost.parameters):.0f} GiB of a GPU in {tightest.what}, and "
            f"there are {tightest.room:.0f} (placement.gpu_memory_gib): the largest base that fits has about "
            f"{_billions(tightest.most)} parameters; take a smaller one, or GPUs with more memory"
        )


def memory_lines(study: Study, memory: float | None, gpus: bool) -> Iterator[str]:
    """Notes for a plan: memory that is not known where ``gpus`` are meant, a micro-batch that will be halved."""
    cost = estimate(study)
    if memory is None and gpus:
        yield "whether the base fits a GPU was not checked: give placement.gpu_memory_gib"
    if memory is None or cost is None:
        return
    share = study.placement.gpus_per_training
    if cost.training_gib > (memory - CONTEXT_GIB) * share:
        lower = "it will be halved until it fits"
        if study.training.shard_base:
            lower = "lower it, since with training.shard_base it is not halved"
        yield (
            f"training.micro_batch: {study.training.micro_batch} takes about {cost.training_gib:.0f} GiB, a training "
            f"has {memory * share:.0f}: {lower}"
            + ("" if study.training.gradient_checkpointing else "; training.gradient_checkpointing=true takes less")
        )


def _needs(study: Study, cost: Cost, memory: float) -> list[Need]:
    assert study.base.shape is not None, "a cost is of a shape"
    adapter = cost.adapter_parameters * ADAPTER_BYTES / GIB
    precision, room = study.training.precision, memory - CONTEXT_GIB
    each = BYTES[precision] * weights_held(study, study.base.shape) / cost.parameters
    return [
        Need(f"a training ({precision})", each, adapter, room * study.placement.gpus_per_training),
        Need("the measurements of its layers (features, float32)", BYTES["float32"], 0.0, room),
    ]


def _billions(parameters: float) -> str:
    return f"{parameters / 1e9:.2g} B"
