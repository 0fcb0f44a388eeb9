"""Shared by both engines: checks of prompts and adapters, seeds per prompt, stop tokens, decoding."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from evals.engines import Completion, Sampling
from models.adapter_config import largest_rank, load_config


def check_prompts(prompts: Sequence[Sequence[int]], max_model_len: int) -> None:
    """ValueError for a prompt without tokens or without room for a completion."""
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {index} is empty; a prompt needs at least one token")
        if len(prompt) >= max_model_len:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens, which leaves no room within max_model_len "
                f"{max_model_len}; raise max_model_len or drop the problem"
            )


def check_adapter(adapter: Path, max_lora_rank: int) -> None:
    """ValueError for a folder without an adapter, or one of a rank above ``max_lora_rank``."""
    rank = largest_rank(load_config(adapter))
    if rank > max_lora_rank:
        raise ValueError(
            f"{adapter}: rank {rank} is more than the engine's max_lora_rank {max_lora_rank}; open it with that rank"
        )


def prompt_seeds(prompts: Sequence[Sequence[int]], seed: int) -> list[int]:
    """A seed for each prompt, from ``seed``, its tokens and the number of earlier equal prompts, not its position."""
    seen: Counter[tuple[int, ...]] = Counter()
    seeds = []
    for prompt in map(tuple, prompts):
        text = json.dumps([seed, seen[prompt], prompt]).encode()
        seeds.append(int.from_bytes(hashlib.sha256(text).digest()[:6], "big"))
        seen[prompt] += 1
    return seeds


def stop_tokens(model: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """End-of-turn tokens: the tokenizer's, and those of the generation config (else of the model's config)."""
    if (model / "generation_config.json").is_file():
        named = GenerationConfig.from_pretrained(model, local_files_only=True).eos_token_id
    else:
        named = AutoConfig.from_pretrained(model, local_files_only=True).eos_token_id
    several = named if isinstance(named, list) else [named]
    return tuple(sorted({token for token in (*several, tokenizer.eos_token_id) if token is not None}))


class Decoder:
    """A model folder's tokenizer and stop tokens."""

    def __init__(self, model: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        self.stops = stop_tokens(model, self.tokenizer)

    def stops_with(self, sampling: Sampling) -> tuple[int, ...]:
        """Every stop token: the model's own and the sampling's."""
        return tuple(sorted({*self.stops, *sampling.stop}))

    def completions(self, rows: Sequence[Sequence[int]], stops: Collection[int]) -> list[Completion]:
        """Completions of generated token rows; a row that ends with one of ``stops`` has finish "stop"."""
        done = [bool(row) and row[-1] in stops for row in rows]
        bodies = [list(row[:-1]) if stopped else list(row) for row, stopped in zip(rows, done, strict=True)]
        texts = self.tokenizer.batch_decode(bodies, skip_special_tokens=True)
        return [
            Completion(tuple(row), text, "stop" if stopped else "length")
            for row, text, stopped in zip(rows, texts, done, strict=True)
        ]
