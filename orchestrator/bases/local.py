"""A base in a local folder, identified by its content and read in place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from execution.errors import UserError
from execution.fingerprint import folder_hash
from models.lfs_pointer import refuse_pointer
from orchestrator.bases.base import BaseSpec, Shape
from orchestrator.bases.config_json import config_positions, config_sizes, text_config, vocabulary_in
from orchestrator.config.values import Name

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
TOWER = re.compile(r"\b(vision|visual|audio)")  # modules of a multimodal model's tower, which are never adapted


class LocalBase(BaseSpec):
    """A folder with a model in safetensors, its config and its tokenizer."""

    kind: Literal["local"]
    name: Name
    path: str
    shape: Shape | None = None

    @property
    def local_path(self) -> str:
        return self.path

    def identity(self, resolver: Resolver) -> str:
        return folder_hash(local_folder(self.path))

    def sizes(self) -> dict[str, Any]:
        return config_sizes(self._config())

    def positions(self) -> int | None:
        return config_positions(self._config())

    def _config(self) -> dict[str, Any]:
        return text_config(json.loads((local_folder(self.path) / "config.json").read_text(encoding="utf-8")))

    def own_template(self) -> tuple[str | None, dict[str, str]]:
        folder = local_folder(self.path)
        try:
            path = folder / "tokenizer_config.json"
            config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            file = folder / "chat_template.jinja"
            template = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
            if isinstance(template, list):
                template = next((t["template"] for t in template if t["name"] == "default"), None)
            tokens = {k: v["content"] if isinstance(v, dict) else v for k, v in config.items() if k.endswith("_token")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"base.path: the tokenizer's files in {folder} cannot be read: save it again") from None
        return template, {k: v for k, v in tokens.items() if isinstance(v, str)}

    def vocabulary(self) -> Any:
        return vocabulary_in(local_folder(self.path) / "tokenizer.json")

    def module_sizes(self) -> dict[str, tuple[int, int]]:
        sizes: dict[str, tuple[int, int]] = {}
        for file in sorted(local_folder(self.path).glob("*.safetensors")):
            for name, shape in _shapes(file).items():
                inside = any(part.isdigit() for part in name.split(".")) and not TOWER.search(name)
                if len(shape) == 2 and ".weight" in name and inside:
                    sizes[name.removesuffix(".weight")] = (shape[0], shape[1])
        return sizes

    @classmethod
    def make(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], out: Path, progress: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]]:
        folder = Path(runtime["path"]).resolve()
        return folder, {"folder": str(folder)}


def local_folder(path: str | Path) -> Path:
    """The checked folder of a local base. ``UserError`` if config, safetensors weights or tokenizer are missing."""
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise UserError(f"base.path: {folder} has no config.json: name a folder with a Hugging Face model")
    for file in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".model")):
        try:
            refuse_pointer(file)
        except (ValueError, OSError) as error:
            raise UserError(f"base.path: {error}") from None
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"base.path: {folder / 'config.json'} is not JSON: save the model again") from None
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"base.path: {folder} has no .safetensors weights: convert it, pickles are not read")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"base.path: {folder} has no tokenizer ({', '.join(TOKENIZERS)}): save it there")
    return folder


def _shapes(file: Path) -> dict[str, list[int]]:
    """Tensor names -> shapes, from the header of a safetensors file. ``UserError`` if it is damaged or truncated."""
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
        raise UserError(f"base.path: {file} is damaged or not a safetensors file: copy it again") from None
