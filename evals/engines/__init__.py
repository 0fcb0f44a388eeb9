"""Engines: token ids in, completions and log-probabilities out, from a base model or one LoRA adapter on it.

An engine answers one call with one model, so no batch ever mixes models. What a call returns depends on its prompts,
its sampling and its adapter alone, not on calls made before it. A batch's make-up changes rounding, so a caller that
wants the same bytes again must ask with the same list of prompts.
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
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of its attention on a CPU
HOTTEST = 2.0  # vLLM takes no higher temperature


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Temperature 0 is greedy, and gives one completion a prompt.

    ``n`` completions a prompt, each of at most ``max_tokens`` tokens; ``seed`` decides every random draw. ``stop`` are
    tokens that end a completion beside the model's own: that with which the chat template ends a turn.
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
    """What a model wrote. ``token_ids`` end with the stop token unless ``finish`` is "length"; ``text`` omits it."""

    token_ids: tuple[int, ...]
    text: str
    finish: Literal["stop", "length"]


class Engine(Protocol):
    """A model that is loaded. Prompts are token ids; ``adapter`` is a PEFT folder, None the base."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, adapter: Path | None = None
    ) -> list[list[Completion]]:
        """``sampling.n`` completions of each prompt, in the prompts' order.

        Equal prompts of one call draw different samples; otherwise a prompt's draws do not depend on the others.
        Raises ValueError for an empty or overlong prompt and for an adapter the engine cannot take.
        """
        ...

    def top_logprobs(
        self, prompts: Sequence[Sequence[int]], k: int, adapter: Path | None = None
    ) -> list[dict[int, float]]:
        """For each prompt the ``k`` likeliest next tokens: token id -> natural-log probability."""
        ...

    def close(self) -> None:
        """Frees the model. The engine cannot be used afterwards."""
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
    """Loads ``model`` (a local folder) into an engine.

    Args:
        kind: "vllm" or "transformers".
        precision: of the base weights and the arithmetic, "float32" or "bfloat16".
        max_lora_rank: the largest rank an adapter may have; 0 takes no adapter.
        adapters: "lora", beside the weights, or "swapped" into them in place (vllm in float32: bfloat16 weights would
            round most of an update away).
        max_model_len: most tokens of a prompt and its completion together.
        threads: intra-op CPU threads.
        seed: of the engine's own generators; what is sampled is decided by ``Sampling.seed``.
        device: "cpu" or "cuda".
        batch_size: sequences that run at once.
        cache_gib: GiB of key-value cache on a CPU (vllm).
        memory_share: share of a GPU's memory that may be used (vllm).
        attention: its implementation, "sdpa", "eager" or "flash" (transformers).

    Raises ValueError for a setting that is not one of these, and for a folder that holds no model.
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
    """Import what ``open_engine(kind, ...)`` and the canary need, in a process that serves and does nothing else.

    These are seconds that can pass while there is something else to wait for. The imports make about a million
    objects that stay, and vLLM asks for full garbage collections while it opens: they are set aside from those, until
    the first engine is closed (vLLM then takes them back).
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
