"""A base's sizes before it is loaded: from the study, its config.json, or the headers of its files."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from execution.errors import UserError
from execution.store import read_json
from orchestrator.config.base import SCRATCH_POSITIONS, Shape
from orchestrator.config.rollouts import SampledRollouts
from orchestrator.config.study import Study
from orchestrator.planning.cost import module_shapes
from orchestrator.planning.resolve import gguf_path, local_folder

TOWER = re.compile(r"\b(vision|visual|audio)")  # of a model that reads images or sound too; never adapted
# GGUF's names of what Llama-like models call otherwise.
GGUF_NAMES = {
    "attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj",
    "ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj",
}  # fmt: skip


def shaped(study: Study) -> Study:
    """The study with the shapes of its base, and of a model that it samples, where their files tell them."""
    changed: dict[str, Any] = {"base": _shaped(study.base)}
    rollouts = study.rollouts
    if isinstance(rollouts, SampledRollouts) and rollouts.model != "base":
        changed["rollouts"] = rollouts.model_copy(update={"model": _shaped(rollouts.model)})
    return study.model_copy(update=changed)


def _shaped(base: Any) -> Any:
    shape = None if base.shape else shape_of(base)
    return base.model_copy(update={"shape": shape}) if shape else base


def shape_of(base: Any) -> Shape | None:
    """The shape that the study gives, or the base's own files on this machine; None where neither does."""
    if base.shape is not None:
        return Shape.model_validate(base.shape.model_dump())
    try:
        return Shape.model_validate(_gguf_sizes(base) if base.kind == "gguf" else _config_sizes(base))
    except ValueError:
        return None


def _config(base: Any) -> dict[str, Any]:
    """The config.json of a base, or the part of it that is about text; empty where the hub's was not fetched yet."""
    if base.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(base.name, "config.json", revision=base.revision)
        config = read_json(Path(cached)) if isinstance(cached, str) else {}
    else:
        config = json.loads((local_folder(base) / "config.json").read_text(encoding="utf-8"))
    config = config if isinstance(config, dict) else {}
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _config_sizes(base: Any) -> dict[str, Any]:
    config = _config(base)
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


def _gguf_sizes(base: Any) -> dict[str, Any]:
    reader = _gguf(gguf_path(base))

    def told(name: str) -> Any:
        field = reader.get_field(name)
        return None if field is None else field.contents()

    kind = told("general.architecture")
    heads, hidden = told(f"{kind}.attention.head_count"), told(f"{kind}.embedding_length")
    tokens = reader.get_field("tokenizer.ggml.tokens")
    return {
        "layers": told(f"{kind}.block_count"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": told(f"{kind}.attention.head_count_kv") or heads,
        "head_dim": told(f"{kind}.attention.key_length") or (hidden // heads if hidden and heads else None),
        "intermediate": told(f"{kind}.feed_forward_length"),
        "vocabulary": len(tokens.data) if tokens else None,
    }


def positions(base: Any) -> int | None:
    """The longest text that the base takes, in tokens; None where only its download would tell."""
    if base.kind == "from_scratch":
        return SCRATCH_POSITIONS
    if base.kind == "gguf":
        return None
    config = _config(base)
    found = config.get("max_position_embeddings")
    return found if isinstance(found, int) and not config.get("rope_scaling") else None


def own_template(base: Any) -> tuple[str | None, dict[str, str]]:
    """The chat template that lies with a base on this machine, and its special tokens; None where there is none."""
    if base.kind == "gguf":
        field = _gguf(gguf_path(base)).get_field("tokenizer.chat_template")
        return (str(field.contents()) if field else None), {}
    if base.kind != "local":
        return None, {}
    folder = local_folder(base)
    try:
        path = folder / "tokenizer_config.json"
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        file = folder / "chat_template.jinja"
        template = file.read_text(encoding="utf-8") if file.is_file() else told.get("chat_template")
        if isinstance(template, list):
            template = next((t["template"] for t in template if t["name"] == "default"), None)
        tokens = {k: v["content"] if isinstance(v, dict) else v for k, v in told.items() if k.endswith("_token")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"base.path: the tokenizer's files in {folder} cannot be read: save it again") from None
    return template, {k: v for k, v in tokens.items() if isinstance(v, str)}


def module_sizes(base: Any) -> dict[str, tuple[int, int]] | None:
    """Modules with a weight matrix inside the layers, and its two sides; None where only loading would tell."""
    if base.kind == "from_scratch":
        return {
            f"model.layers.{i}.{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}": sides
            for i in range(base.shape.layers)
            for name, sides in module_shapes(base.shape).items()
        }
    if base.kind == "gguf":
        tensors = {tensor.name: tensor for tensor in _gguf(gguf_path(base)).tensors}
        parts = {name: name.split(".") for name in tensors if name.startswith("blk.") and name.endswith(".weight")}
        return {
            f"layers.{part[1]}.{GGUF_NAMES[part[2]]}": (int(tensors[name].shape[0]), int(tensors[name].shape[1]))
            for name, part in parts.items()
            if part[2] in GGUF_NAMES
        }
    if base.kind != "local":
        return None
    found: dict[str, tuple[int, int]] = {}
    for file in sorted(local_folder(base).glob("*.safetensors")):
        for name, shape in _shapes(file).items():
            inside = any(part.isdigit() for part in name.split(".")) and not TOWER.search(name)
            if len(shape) == 2 and ".weight" in name and inside:
                found[name.removesuffix(".weight")] = (shape[0], shape[1])
    return found


def _gguf(file: Path) -> Any:
    told = file.stat()
    return _gguf_reader(file, told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=2)  # a base's and a teacher's: their tokens are many
def _gguf_reader(file: Path, changed: int, size: int) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except (ValueError, OSError, IndexError, KeyError):
        raise UserError(f"{file} is damaged or no GGUF file: copy it again") from None


def _shapes(file: Path) -> dict[str, list[int]]:
    """The tensors of a safetensors file and their shapes, from its header; the file must be as long as that says."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if file.stat().st_size < 8 + length + end:
            raise ValueError("the file is cut off")
        return {name: list(entry["shape"]) for name, entry in tensors.items()}
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise UserError(f"base.path: {file} is damaged or no safetensors file: copy it again") from None
