"""Loads a base model, refusing incomplete weights; its token limits and the text modules that an adapter can target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

ATTENTION = {"flash": "flash_attention_2"}  # our name -> Transformers' name, where they differ


def load(folder: Path, precision: str, attention: str | None = None, device: str = "cpu") -> PreTrainedModel:
    """The causal language model in ``folder``, from safetensors only, in eval mode and frozen, on ``device``.

    Its dropout rates are set to 0, because gradient checkpointing needs layers in training mode. ``attention`` is
    "sdpa", "eager" or "flash"; None is Transformers' default. ``ValueError`` if a weight is missing or has the wrong
    shape (Transformers would initialise it at random; tied weights may be missing), or if the model does not support
    ``attention``.
    """
    asked = {} if attention is None else {"attn_implementation": ATTENTION.get(attention, attention)}
    try:
        both: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, precision),
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # reported by check_whole
            output_loading_info=True,
            **asked,
        )
    except ValueError as error:
        if attention is None or not re.search("attention implementation|flash attention", str(error), re.IGNORECASE):
            raise
        raise ValueError(
            f"{folder}: this model does not support {attention} attention: set training.attention=eager"
        ) from None
    model, loading = both
    check_whole(folder, loading)
    _without_dropout(model)
    return model.to(device).eval().requires_grad_(False)


def check_whole(place: Path, loading: Mapping[str, Any]) -> None:
    """``ValueError`` if Transformers' loading information lists missing or mismatched weights."""
    missing, shaped = sorted(loading["missing_keys"]), sorted(str(key[0]) for key in loading["mismatched_keys"])
    if missing:
        raise ValueError(f"{place} lacks {len(missing)} weights of its model ({missing[0]}): save it again in full")
    if shaped:
        raise ValueError(f"{place}: {len(shaped)} weights have a shape that differs from its config ({shaped[0]})")


def _without_dropout(model: PreTrainedModel) -> None:
    """Set every dropout rate to 0: those of Dropout modules, and float attributes of layers and their configs."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            for name, value in vars(holder).items() if holder is not None else ():
                if "drop" in name and isinstance(value, float):
                    setattr(holder, name, 0.0)


def positions(config: PreTrainedConfig) -> int | None:
    """The most tokens the model takes; None if its config has no limit, as without position embeddings."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def vocabulary(model: PreTrainedModel) -> int:
    """Rows of the model's embedding matrix."""
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.num_embeddings)


def targeted(model: PreTrainedModel, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Full name -> linear module, for all modules that adapter ``targets`` (names or their endings) match.

    Modules of a vision or audio tower never match: a tower is a model inside the model whose config is not the text
    model's. One-line ``ValueError`` if a target matches no module (with those there are) or the output head.
    """
    linear = {name: module for name, module in _text_modules(model) if isinstance(module, (nn.Linear, Conv1D))}
    head = model.get_output_embeddings()
    modules: dict[str, nn.Module] = {}
    for target in targets:
        matches = {name: m for name, m in linear.items() if name == target or name.endswith("." + target)}
        if any(module is head for module in matches.values()):
            raise ValueError(f"adapter target {target!r} is the output head, which is not adapted here: leave it out")
        if not matches:
            inner = sorted({name.rpartition(".")[2] for name, module in linear.items() if module is not head})
            raise ValueError(f"adapter target {target!r} matches no module of this model; it has: {', '.join(inner)}")
        modules |= matches
    return modules


def _text_modules(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """All modules but those of nested models other than the language model."""
    kinds = {type(model.config), type(model.config.get_text_config())}
    others = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel) and type(module.config) not in kinds
    )
    return [(name, module) for name, module in model.named_modules() if not name.startswith(others)]
