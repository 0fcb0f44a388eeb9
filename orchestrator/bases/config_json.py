"""What a model's config.json tells before the model is loaded."""

from __future__ import annotations

from typing import Any


def text_config(config: Any) -> dict[str, Any]:
    """The part of a parsed config.json that is about text; empty where it is no mapping."""
    config = config if isinstance(config, dict) else {}
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def config_sizes(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``Shape``, None for those that it does not tell."""
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
    """The longest text in tokens; None where it is not told, or scaled."""
    found = config.get("max_position_embeddings")
    return found if isinstance(found, int) and not config.get("rope_scaling") else None
