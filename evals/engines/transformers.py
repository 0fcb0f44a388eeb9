"""The Transformers engine: runs wherever PyTorch does, and is the reference for the vLLM engine.

Prompts of similar length share a left-padded batch; a padded position has weight exactly 0 in attention, so padding
changes only rounding. Samples are drawn by inverse transform with one uniform number per token from the completion's
own generator, so draws do not depend on the rest of the batch.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from transformers import DynamicCache, PreTrainedModel

from evals.engines import Completion, Sampling
from evals.engines.requests import Decoder, check_adapter, check_prompts, prompt_seeds
from evals.engines.settings import EngineConfig
from models.base import load
from models.padding import by_length

# Letters in shapes: b rows of a batch, p longest prompt, v vocabulary.


class TransformersEngine:
    """See ``Engine`` and ``open_engine``."""

    def __init__(self, model: Path, config: EngineConfig) -> None:
        self.max_lora_rank, self.max_model_len = config.max_lora_rank, config.max_model_len
        self.threads, self.device, self.batch_size = config.threads, config.device, config.batch_size
        self.decoder = Decoder(model)
        # Loaded frozen: kernels depend on requires_grad even in inference mode, and PEFT switches it off.
        self.model: PreTrainedModel | None = load(model, config.precision, config.attention, config.device)
        if config.precision != "float32" and config.device == "cpu":
            self.model.get_output_embeddings().register_forward_pre_hook(_in_one_piece)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, adapter: Path | None = None
    ) -> list[list[Completion]]:
        """See ``Engine.generate``."""
        check_prompts(prompts, self.max_model_len)
        seeds = prompt_seeds(prompts, sampling.seed)
        asked = [(prompt, seed + i) for prompt, seed in zip(prompts, seeds, strict=True) for i in range(sampling.n)]
        rows: list[list[int]] = [[] for _ in asked]
        with self._model(adapter) as model:
            for indices in by_length([len(prompt) for prompt, _ in asked], self.batch_size):
                written = self._write(model, [asked[i] for i in indices], sampling)
                for index, row in zip(indices, written, strict=True):
                    rows[index] = row
        flat = self.decoder.completions(rows, self.decoder.stops_with(sampling))
        return [flat[start : start + sampling.n] for start in range(0, len(flat), sampling.n)]

    def logprobs(self, prompts: Sequence[Sequence[int]], adapter: Path | None = None) -> torch.Tensor:
        """Log-probabilities of every next token in nats: prompts x v, float32, on the CPU."""
        check_prompts(prompts, self.max_model_len)
        logprobs: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
        with self._model(adapter) as model:
            for indices in by_length([len(prompt) for prompt in prompts], self.batch_size):
                ids_bp, mask_bp = self._pad([prompts[i] for i in indices])
                logits_bv = _forward(model, ids_bp, mask_bp, None)
                for index, row_v in zip(indices, torch.log_softmax(logits_bv, dim=-1).cpu(), strict=True):
                    logprobs[index] = row_v
        return torch.stack(logprobs)

    def top_logprobs(
        self, prompts: Sequence[Sequence[int]], k: int, adapter: Path | None = None
    ) -> list[dict[int, float]]:
        """See ``Engine.top_logprobs``."""
        if not prompts:
            return []
        top = self.logprobs(prompts, adapter).topk(k, dim=-1)
        return [
            dict(zip(ids, values, strict=True))
            for ids, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]

    def close(self) -> None:
        """See ``Engine.close``."""
        self.model = None
        gc.collect()  # a model that had an adapter is in cycles, which would keep its weights beside the next one's
        if self.device != "cpu":
            torch.cuda.empty_cache()

    @contextmanager
    def _model(self, adapter: Path | None) -> Iterator[torch.nn.Module]:
        """The base, with ``adapter`` attached if given until the block ends, with this engine's threads."""
        assert self.model is not None, "the engine is closed"
        if adapter is not None:
            check_adapter(adapter, self.max_lora_rank)
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                if adapter is None:
                    yield self.model
                    return
                # PEFT draws initial values, which the file then overwrites: restore the global generator's state.
                with torch.random.fork_rng(devices=[]):
                    adapted = PeftModel.from_pretrained(self.model, str(adapter))
                try:
                    yield adapted.eval()
                finally:
                    self.model = adapted.unload()
        finally:
            torch.set_num_threads(threads)

    def _pad(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded ids and their mask, each b x p."""
        longest = max(len(prompt) for prompt in prompts)
        ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _write(
        self, model: torch.nn.Module, asked: Sequence[tuple[Sequence[int], int]], sampling: Sampling
    ) -> list[list[int]]:
        """The generated token rows of one batch of (prompt, seed)."""
        ids, mask = self._pad([prompt for prompt, _ in asked])
        room = [min(sampling.max_tokens, self.max_model_len - len(prompt)) for prompt, _ in asked]
        uniform = _uniform([seed for _, seed in asked], max(room)) if sampling.temperature > 0 else None
        rows: list[list[int]] = [[] for _ in asked]
        stops = self.decoder.stops_with(sampling)
        live = list(range(len(asked)))  # rows still in the batch
        cache = DynamicCache()
        for step in range(max(room)):
            logits = _forward(model, ids, mask, cache)
            chosen = _choose(logits, sampling, None if uniform is None else uniform[live, step].to(logits.device))
            for index, token in zip(live, chosen.tolist(), strict=True):
                if len(rows[index]) < room[index] and not (rows[index] and rows[index][-1] in stops):
                    rows[index].append(token)
            keep = [i for i, r in enumerate(live) if rows[r][-1] not in stops and len(rows[r]) < room[r]]
            if not keep:
                break
            ids, mask = chosen[:, None], torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            if len(keep) <= len(live) // 2:  # dropping rows copies the cache, so only if many are done
                at = torch.tensor(keep, device=self.device)
                cache.batch_select_indices(at)
                ids, mask, live = ids[at], mask[at], [live[i] for i in keep]
        return rows


def _in_one_piece(head: torch.nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The head's input, contiguous. With a slice, such as the last positions, torch copies the head's bfloat16 weights
    for each row of a batch on a CPU: 9 GB for 12 rows at 152 000 tokens and 2 560 units, and seconds for each token."""
    return tuple(part.contiguous() for part in hidden)


def _forward(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
    """Logits after the last token, b x v, float32. ``mask`` covers the cached tokens and ``ids`` (b x new)."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=1,
    )
    logits: torch.Tensor = out.logits[:, -1].float()
    return logits


def _uniform(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Uniform numbers in [0, 1), rows x steps, float64, each row from its own generator."""
    return torch.stack(
        [torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    )


def _choose(logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor | None) -> torch.Tensor:
    """The next token of each row (b) from logits b x v: the argmax, or the token at ``uniform`` (b) of the CDF.

    Top-p keeps the most probable tokens up to and including the one that reaches ``top_p`` (Holtzman et al. 2020,
    section 3.1).
    """
    if uniform is None:
        return logits.argmax(dim=-1)
    scaled = (logits.double() / sampling.temperature).softmax(dim=-1)
    probabilities, tokens = scaled.sort(dim=-1, descending=True, stable=True)
    kept = probabilities.cumsum(dim=-1) - probabilities < sampling.top_p
    cumulative = torch.where(kept, probabilities, 0.0).cumsum(dim=-1)
    at = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)[:, 0]
    at = at.minimum(kept.sum(dim=-1) - 1)  # a product rounded up to the total is past the last kept token
    return tokens.gather(-1, at[:, None])[:, 0]
