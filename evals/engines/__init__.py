"""Engines: token ids in, completions and log-probabilities out, from a base model or one LoRA adapter on it.

A call uses one model, so no batch mixes models. Its result depends only on its prompts, sampling and adapter, not on
earlier calls. The composition of a batch changes rounding: the same bytes need the same list of prompts.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from evals.engines.settings import EngineConfig

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


def open_engine(kind: Any, model: Path, **settings: Any) -> Engine:
    """Loads ``model`` (a local folder) into an engine of this kind; ``settings`` are those of ``EngineConfig``.

    ValueError for an unknown setting and for a folder without a model.
    """
    config = EngineConfig(kind=kind, **settings)
    if not (model / "config.json").is_file():
        raise ValueError(f"{model}: holds no config.json; give the folder of a model")
    if config.kind == "vllm":
        from evals.engines.vllm import VllmEngine

        return VllmEngine(model, config)
    from evals.engines.transformers import TransformersEngine

    return TransformersEngine(model, config)


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
