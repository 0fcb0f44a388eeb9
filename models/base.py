"""A base model as all packages take it: whole or not at all, with its limits and the part of it that reads text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

ATTENTION = {"flash": "flash_attention_2"}  # what Transformers calls otherwise


def load(folder: Path, precision: str, attention: str | None = None, device: str = "cpu") -> PreTrainedModel:
    """The causal language model in ``folder``, from safetensors alone, in eval mode and frozen, on ``device``.

    Its own dropout is off whatever mode a trainer puts it in: a layer's flag switches its checkpointing on as well.
    ``attention`` is "sdpa", "eager" or "flash"; None is what Transformers takes by itself. ``ValueError`` where the
    files lack a weight of the model or hold one of another shape: Transformers would make it up at random and go on.
    Weights that are tied to others are no lack. ``ValueError`` too where the model does not know ``attention``.
    """
    asked = {} if attention is None else {"attn_implementation": ATTENTION.get(attention, attention)}
    try:
        both: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, precision),
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are named below
            output_loading_info=True,
            **asked,
        )
    except ValueError as error:
        if attention is None or not re.search("attention implementation|flash attention", str(error), re.IGNORECASE):
            raise
        raise ValueError(
            f"{folder}: this model does not know {attention} attention: set training.attention=eager"
        ) from None
    model, told = both
    check_whole(folder, told)
    _without_dropout(model)
    return model.to(device).eval().requires_grad_(False)


def check_whole(place: Path, told: Mapping[str, Any]) -> None:
    """``ValueError`` where Transformers' loading information tells of weights that it had to make up."""
    missing, shaped = sorted(told["missing_keys"]), sorted(str(key[0]) for key in told["mismatched_keys"])
    if missing:
        raise ValueError(f"{place} lacks {len(missing)} weights of its model ({missing[0]}): save it again whole")
    if shaped:
        raise ValueError(f"{place}: {len(shaped)} weights have another shape than its config says ({shaped[0]})")


def _without_dropout(model: PreTrainedModel) -> None:
    """Dropout is a module of its own, or a number that a layer or its config holds."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            for name, value in vars(holder).items() if holder is not None else ():
                if "drop" in name and isinstance(value, float):
                    setattr(holder, name, 0.0)


def positions(config: PreTrainedConfig) -> int | None:
    """The most tokens that the model takes; None where its config names no limit, as without position embeddings."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def vocabulary(model: PreTrainedModel) -> int:
    """How many tokens the model has embeddings for."""
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.num_embeddings)


def targeted(model: PreTrainedModel, targets: Sequence[str]) -> dict[str, nn.Module]:
    """The linear modules, by full name, that adapter ``targets`` (names or their endings) mean.

    Those of a vision or audio tower never are: a tower is a model of its own inside the model, whose config is not the
    text model's. ``ValueError``, one line, where a target matches none, with what there is, or the output head.
    """
    linear = {name: module for name, module in _text_modules(model) if isinstance(module, (nn.Linear, Conv1D))}
    head = model.get_output_embeddings()
    found: dict[str, nn.Module] = {}
    for target in targets:
        own = {name: m for name, m in linear.items() if name == target or name.endswith("." + target)}
        if any(module is head for module in own.values()):
            raise ValueError(f"adapter target {target!r} is the output head, which is not adapted here: leave it out")
        if not own:
            inner = sorted({name.rpartition(".")[2] for name, module in linear.items() if module is not head})
            raise ValueError(f"adapter target {target!r} matches no module of this model; it has: {', '.join(inner)}")
        found |= own
    return found


def _text_modules(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """All modules but those whose innermost model is another one than the language model."""
    kinds = {type(model.config), type(model.config.get_text_config())}
    others = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel) and type(module.config) not in kinds
    )
    return [(name, module) for name, module in model.named_modules() if not name.startswith(others)]
