"""Engines: token ids in, completions and log-probabilities out, from a base model or one LoRA adapter on it.

A call uses one model, so no batch mixes models. Its result depends only on its prompts, sampling and adapter, not on
earlier calls. The composition of a batch changes rounding: the same bytes need the same list of prompts.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

ENGINES = ("vllm", "transformers")
PRECISIONS = ("float32", "bfloat16")
ADAPTERS = ("lora", "swapped")
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # that vLLM's CPU attention supports
HOTTEST = 2.0  # vLLM's highest temperature


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. Temperature 0 is greedy and allows one completion per prompt.

    ``n`` completions per prompt of at most ``max_tokens`` tokens each; ``seed`` determines every random draw. ``stop``
    are stop tokens in addition to the model's own, such as the chat template's end of turn.
    """

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0
    stop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_tokens < 1:
            raise ValueError(f"n and max_tokens must be 1 or more, found n={self.n}, max_tokens={self.max_tokens}")
        if not 0 <= self.temperature <= HOTTEST or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature must be in [0, {HOTTEST:g}] and top_p in (0, 1], "
                f"found {self.temperature} and {self.top_p}"
            )
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"temperature 0 gives {self.n} equal completions; set n to 1 or raise the temperature")


@dataclass(frozen=True)
class Completion:
    """A model's output. ``token_ids`` end with the stop token unless ``finish`` is "length"; ``text`` omits it."""

    token_ids: tuple[int, ...]
    text: str
    finish: Literal["stop", "length"]


class Engine(Protocol):
    """A loaded model. Prompts are token ids; ``adapter`` is a PEFT folder, None for the base."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, adapter: Path | None = None
    ) -> list[list[Completion]]:
        """``sampling.n`` completions of each prompt, in the prompts' order.

        Equal prompts of one call draw different samples; otherwise a prompt's draws do not depend on other prompts.
        ValueError for an empty or too long prompt and for an adapter that the engine cannot serve.
        """
        ...

    def top_logprobs(
        self, prompts: Sequence[Sequence[int]], k: int, adapter: Path | None = None
    ) -> list[dict[int, float]]:
        """For each prompt the top ``k`` next tokens: token id -> log-probability in nats."""
        ...

    def close(self) -> None:
        """Free the model. The engine cannot be used afterwards."""
        ...


def open_engine(
    kind: str,
    model: Path,
    *,
    precision: str = "float32",
    max_lora_rank: int = 0,
    adapters: str = "lora",
    max_model_len: int = 2048,
    threads: int = 1,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 256,
    cache_gib: float = 1.0,
    memory_share: float = 0.9,
    attention: str = "sdpa",
) -> Engine:
    """Load ``model`` (a local folder) into an engine.

    Args:
        kind: "vllm" or "transformers".
        precision: of the base weights and the arithmetic, "float32" or "bfloat16".
        max_lora_rank: the largest rank of an adapter; 0 for none.
        adapters: "lora", beside the weights, or "swapped": added to the weights in place (vllm in float32 only, since
            bfloat16 weights would round most of an update away).
        max_model_len: largest number of tokens of a prompt with its completion.
        threads: intra-op CPU threads.
        seed: of the engine's own generators; samples are determined by ``Sampling.seed``.
        device: "cpu" or "cuda".
        batch_size: sequences that run at once.
        cache_gib: GiB of key-value cache on a CPU (vllm).
        memory_share: fraction of a GPU's memory that may be used (vllm).
        attention: implementation, "sdpa", "eager" or "flash" (transformers).

    ValueError for an unknown setting and for a folder without a model.
    """
    if kind not in ENGINES:
        raise ValueError(f"engine {kind!r} is not one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if adapters not in ADAPTERS:
        raise ValueError(f"adapters {adapters!r} is not one of {', '.join(ADAPTERS)}")
    if adapters == "swapped" and (kind, precision) != ("vllm", "float32"):
        raise ValueError(f"adapters are swapped into the weights by vllm in float32, not by {kind} in {precision}")
    if not (model / "config.json").is_file():
        raise ValueError(f"{model}: holds no config.json; give the folder of a model")
    if kind == "vllm":
        from evals.engines.vllm import VllmEngine

        return VllmEngine(
            model, precision=precision, max_lora_rank=max_lora_rank, adapters=adapters, max_model_len=max_model_len,
            threads=threads, seed=seed, device=device, batch_size=batch_size, cache_gib=cache_gib,
            memory_share=memory_share,
        )  # fmt: skip
    from evals.engines.transformers import TransformersEngine

    return TransformersEngine(
        model, precision=precision, max_lora_rank=max_lora_rank, max_model_len=max_model_len, threads=threads,
        device=device, batch_size=batch_size, attention=attention,
    )  # fmt: skip


def prepare(kind: str) -> None:
    """Import what ``open_engine(kind, ...)`` and the canary need, ahead of time, in a process that only serves.

    The imports create about a million permanent objects, which are frozen so that the full garbage collections of
    vLLM's start skip them, until the first engine is closed (vLLM then unfreezes them).
    """
    gc.disable()
    try:
        import evals.canary  # noqa: F401

        if kind == "vllm":
            from evals.engines.vllm import import_vllm

            import_vllm()
    finally:
        gc.enable()
    gc.freeze()
