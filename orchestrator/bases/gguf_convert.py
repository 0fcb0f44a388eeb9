"""Converts a GGUF file to a Transformers folder: dequantised float32 safetensors, tokenizer, chat template."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from execution.errors import first_line
from models.base import check_whole


def convert(file: Path, out: Path, progress: Callable[[str], None]) -> None:
    """Write the model in ``file`` to the folder ``out``. ``ValueError`` if Transformers cannot read all of it."""
    folder, name = file.parent, file.name
    progress(f"reading the tokenizer of {name}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        progress(f"dequantizing {name}")
        both: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, KeyError, ValueError, NotImplementedError, struct.error) as error:
        raise ValueError(f"{file} cannot be read as GGUF: {first_line(error)}") from None
    read, loading = both
    check_whole(file, loading)
    # Transformers still treats this model as quantised and refuses to save it, so its weights go into a plain one.
    config = type(read.config).from_dict({k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    plain.generation_config.eos_token_id = plain.config.eos_token_id = tokenizer.eos_token_id
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)
