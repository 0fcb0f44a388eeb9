"""The settings of an engine: each one's type, bounds, default and meaning, here alone.

A study's YAML has :class:`EngineSettings` as ``engine`` and :class:`EnginePlace` in ``placement``; an engine gets both,
and what is its own, as :class:`EngineConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from execution.settings import Count, Every, Neutral, Positive, Range, Seed, Settings


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Settings):
    """The server of rollouts and evaluations. ``auto``: vLLM where it is installed, else Transformers.

    ``adapters``: applied beside the base's weights (``lora``), or swapped into them in place (``swapped``). ``auto``
    swaps in float32, which is faster on a CPU; bfloat16 weights would round most of an update away.
    """

    kind: Literal["auto", "vllm", "transformers"] = "auto"
    adapters: Literal["auto", "lora", "swapped"] = "auto"
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the base's weights and the arithmetic
    max_model_len: Count = 4096  # most tokens of a prompt and its completion together
    batch_size: Count = 256  # sequences at once: a batch's make-up decides its rounding
    threads: Count = 1  # of a CPU, within one operation
    seed: Seed = 0  # of the engine's own generators; what is sampled is decided by ``Sampling.seed``
    tensor_parallel: Neutral[Count] = 1  # GPUs of one node that hold a shard of each weight matrix (vLLM); sums differ

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapters == "swapped" and self.precision == "bfloat16":
            raise ValueError(
                "adapters: swapped needs engine.precision=float32: in bfloat16 the sum rounds small updates away"
            )
        if self.adapters == "swapped" and self.kind == "transformers":
            raise ValueError("adapters: swapped needs engine.kind=vllm: Transformers serves with PEFT")
        if self.tensor_parallel > 1 and self.kind == "transformers":
            raise ValueError(
                f"tensor_parallel: {self.tensor_parallel} needs engine.kind=vllm: Transformers serves on one GPU"
            )
        if self.tensor_parallel > 1 and self.adapters == "swapped":
            raise ValueError("tensor_parallel: the shards of a model take no adapters: swapped: leave adapters=auto")

    def adapters_in(self, kind: str) -> str:
        """``lora`` or ``swapped``: what an engine of this kind does under these settings."""
        if self.adapters != "auto":
            return self.adapters
        whole = kind == "vllm" and self.precision == "float32" and self.tensor_parallel == 1
        return "swapped" if whole else "lora"


@dataclass(frozen=True, kw_only=True)
class EnginePlace(Settings):
    """How an engine uses its machine, which decides no result."""

    cache_gib: Positive = 1.0  # vLLM's key-value cache on a CPU
    memory_share: Annotated[float, Range(gt=0, le=1)] = 0.9  # of a GPU, for vLLM


@dataclass(frozen=True, kw_only=True)
class EngineConfig(EngineSettings, EnginePlace):
    """All that an engine is opened with, besides its model. ``kind`` is named: ``auto`` is for studies."""

    attention: Literal["sdpa", "eager", "flash"] = "sdpa"  # its implementation (transformers)
    max_lora_rank: Every = 0  # the largest rank an adapter may have; 0 takes no adapter
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "auto":
            raise ValueError("kind: auto is for studies; name vllm or transformers")
