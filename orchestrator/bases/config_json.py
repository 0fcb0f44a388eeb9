"""Reads sizes from a model's config.json, and tokens from its tokenizer.json, before the model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def text_config(config: Any) -> dict[str, Any]:
    """The text model's part of a parsed config.json; empty if it is not a mapping."""
    config = config if isinstance(config, dict) else {}
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def config_sizes(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``Shape``, None for missing ones."""
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    derived = hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else None
    return {
        "layers": config.get("num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or derived,
        "intermediate": config.get("intermediate_size"),
        "vocabulary": config.get("vocab_size"),
    }


def config_positions(config: dict[str, Any]) -> int | None:
    """The largest number of tokens; None if it is missing or scaled."""
    limit = config.get("max_position_embeddings")
    return limit if isinstance(limit, int) and not config.get("rope_scaling") else None


def vocabulary_in(file: Path) -> Any:
    """Tokens and ids of a tokenizer.json, to be compared with another's; None if there is none that can be read."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        return saved["model"]["vocab"], {token["content"]: token["id"] for token in saved.get("added_tokens", ())}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
