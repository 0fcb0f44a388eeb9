"""The canary: checks that an engine answers with the requested model.

For the base, an all-zero adapter and each adapter, the engine's top next-token log-probabilities are compared with
Transformers + PEFT in float32 with eager attention. An engine that silently uses the base or another adapter fails,
provided that the two models differ by more than the tolerance: ``told_apart`` says whether they do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from evals.engines import Engine
from evals.engines.settings import EngineConfig
from evals.engines.transformers import TransformersEngine
from models.adapter_config import WEIGHTS, largest_rank, load_config
from models.base import targeted

# Largest allowed difference, in nats. Measured with vLLM on a CPU: in float32 1e-6 at 4 layers of width 128 and 5e-5 at
# 30 layers of width 576 with 49 152 tokens; in bfloat16 0.01 and 0.31.
TOLERANCE = {"float32": 5e-4, "bfloat16": 0.5}


def check(
    engine: Engine,
    model_dir: Path,
    adapters: Mapping[str, Path | None],
    prompts: Sequence[Sequence[int]],
    k: int = 20,
    tolerance: float = TOLERANCE["float32"],
    *,
    threads: int = 1,
) -> list[dict[str, Any]]:
    """One row per model of ``adapters`` (name -> PEFT folder, None for the base), over all ``prompts`` (token ids).

    Each row has name; max_difference (nats, over the engine's top ``k`` tokens, by token and by rank); tolerance;
    passed; effect (the adapter's largest change of a log-probability among the reference's top ``k``); told_apart
    (whether it differs by more than twice the tolerance from the base and from every other model here that is not
    identical, so that a mix-up would fail). ``k`` is limited to the vocabulary's size. ``ValueError`` without prompts.
    """
    if not prompts:
        raise ValueError("the canary needs at least one prompt")
    references = _references(model_dir, adapters, prompts, threads)
    k = min(k, references[None].shape[-1])
    rows = []
    for name, adapter in adapters.items():
        own = references[adapter]
        difference = _difference(engine.top_logprobs(prompts, k, adapter), own, k)
        effect = _distance(own, references[None], k)
        apart = [_distance(own, other, k) for other in references.values()]
        told_apart = all(d > 2 * tolerance for d in apart if d > 0) and (adapter is None or effect > 2 * tolerance)
        rows.append(
            {
                "name": name,
                "max_difference": difference,
                "tolerance": tolerance,
                "passed": difference <= tolerance,
                "effect": effect,
                "told_apart": told_apart,
            }
        )
    return rows


def _references(
    model_dir: Path, adapters: Mapping[str, Path | None], prompts: Sequence[Sequence[int]], threads: int
) -> dict[Path | None, torch.Tensor]:
    """Reference log-probabilities, prompts x vocabulary, of the base (None) and of every adapter."""
    asked = tuple(map(tuple, prompts))
    folders = [folder for folder in adapters.values() if folder is not None]
    return {None: _base_reference(model_dir, asked, threads)} | _reference(model_dir, folders, asked, threads)


@lru_cache(maxsize=1)
def _base_reference(model_dir: Path, prompts: tuple[tuple[int, ...], ...], threads: int) -> torch.Tensor:
    """The base's log-probabilities, cached: every adapter of a study is checked on the same prompts."""
    return _reference(model_dir, [None], prompts, threads)[None]


def _reference(
    model_dir: Path, folders: Sequence[Path | None], prompts: Sequence[Sequence[int]], threads: int
) -> dict[Path | None, torch.Tensor]:
    if not folders:
        return {}
    config = EngineConfig(
        kind="transformers",
        precision="float32",
        max_lora_rank=max((largest_rank(load_config(folder)) for folder in folders if folder), default=0),
        max_model_len=max(map(len, prompts)) + 1,
        threads=threads,
        batch_size=16,
        attention="eager",
    )
    reference = TransformersEngine(model_dir, config)
    logprobs = {folder: reference.logprobs(prompts, folder) for folder in folders}
    reference.close()
    return logprobs


def zero_adapter(folder: Path, model_dir: Path, targets: Sequence[str]) -> Path:
    """Write a rank-1 PEFT LoRA with A = B = 0 on every target module of the model; returns ``folder``.

    An engine that serves it must answer like the base, but by the code path of adapters.
    """
    config = AutoConfig.from_pretrained(model_dir, local_files_only=True)
    with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns that it corrects fan_in_fan_out
        base = AutoModelForCausalLM.from_config(config)
        modules = sorted(targeted(base, targets))
        model = get_peft_model(base, LoraConfig(r=1, lora_alpha=1, target_modules=modules, task_type="CAUSAL_LM"))
        shapes = {name: value.shape for name, value in get_peft_model_state_dict(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    zeros = {name: torch.zeros(shape) for name, shape in shapes.items()}
    save_file(zeros, folder / WEIGHTS, {"format": "pt"})
    model.peft_config["default"].save_pretrained(str(folder))
    return folder


def _difference(answers: Sequence[Mapping[int, float]], own: torch.Tensor, k: int) -> float:
    """Largest difference between an engine's top log-probabilities and the reference (prompts x vocabulary)."""
    largest = 0.0
    for answer, row in zip(answers, own, strict=True):
        if len(answer) < k:
            return math.inf  # tokens are missing
        tokens = torch.tensor(list(answer))
        values = torch.tensor(list(answer.values()))
        by_token = (row[tokens] - values).abs().max()
        by_rank = (row.topk(k).values - values.sort(descending=True).values[:k]).abs().max()
        worst = float(torch.maximum(by_token, by_rank))
        if math.isnan(worst):
            return math.inf
        largest = max(largest, worst)
    return largest


def _distance(own: torch.Tensor, other: torch.Tensor, k: int) -> float:
    """Largest difference of two references over the top ``k`` tokens of ``own``."""
    tokens = own.topk(k, dim=-1).indices
    return float((own.gather(-1, tokens) - other.gather(-1, tokens)).abs().max())
