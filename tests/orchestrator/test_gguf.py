"""A GGUF file that is none, or not whole, is refused by its name."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from orchestrator.bases.gguf_convert import convert


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"no GGUF file at all, only words" * 20], ids=["empty", "cut", "text"]
)
def test_what_is_no_gguf_file_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.gguf"):
        convert(file, tmp_path / "out", lambda line: None)
    assert not (tmp_path / "out").exists()


def written(path: Path, left_out: str = "") -> Path:
    """A llama of one layer and 64 tokens; its matrices are all ones."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(64)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(61))])
    writer.add_token_scores([0.0] * 64)
    writer.add_token_types([3] * 3 + [1] * 61)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"token_embd": (64, 32), "output": (64, 32), "output_norm": (32,)}
    shapes |= {f"blk.0.{part}_norm": (32,) for part in ("attn", "ffn")}
    shapes |= {f"blk.0.attn_{part}": (32, 32) for part in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (48, 32), "blk.0.ffn_up": (48, 32), "blk.0.ffn_down": (32, 48)}
    for name in shapes.keys() - {left_out}:
        writer.add_tensor(f"{name}.weight", np.ones(shapes[name], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_weight_that_is_not_in_the_file_is_missed(tmp_path: Path) -> None:
    """It would be made up at random, and saved as if it had been there."""
    convert(written(tmp_path / "whole.gguf"), tmp_path / "whole", lambda line: None)
    assert (tmp_path / "whole" / "model.safetensors").is_file()
    file = written(tmp_path / "part.gguf", "blk.0.ffn_down")
    with pytest.raises(ValueError, match=r"part\.gguf lacks 1 weights of its model \(model\.layers\.0\.mlp\.down_proj"):
        convert(file, tmp_path / "part", lambda line: None)
    assert not (tmp_path / "part").exists()
