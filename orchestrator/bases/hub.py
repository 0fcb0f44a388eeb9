"""A base on the Hugging Face hub, identified by its commit and fetched by each node that needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from execution.store import read_json
from orchestrator.bases.base import BaseSpec, Shape
from orchestrator.bases.config_json import config_positions, config_sizes, text_config, vocabulary_in
from orchestrator.config.values import Revision

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver


class HubBase(BaseSpec):
    """A model on the Hugging Face hub, by name; ``revision`` is resolved to a commit once and pinned."""

    kind: Literal["hub"]
    name: Annotated[str, Field(pattern=r"^([\w.-]+/)?[\w.-]+$", max_length=96)]
    revision: Revision = "main"
    shape: Shape | None = None

    def identity(self, resolver: Resolver) -> str:
        return resolver.commit(self.name, self.revision, "model")

    def sizes(self) -> dict[str, Any]:
        return config_sizes(self._config())

    def positions(self) -> int | None:
        return config_positions(self._config())

    def vocabulary(self) -> Any:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, "tokenizer.json", revision=self.revision)
        return vocabulary_in(Path(cached)) if isinstance(cached, str) else None

    def _config(self) -> dict[str, Any]:
        """The cached config.json; empty if it was not fetched yet."""
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, "config.json", revision=self.revision)
        return text_config(read_json(Path(cached)) if isinstance(cached, str) else {})

    @classmethod
    def make(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], out: Path, progress: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]]:
        return Path(_download(config["name"], config["content"])), {}

    @classmethod
    def folder(cls, note: Mapping[str, Any], step: Path) -> Path:
        return Path(_download(note["name"], note["revision"]))

    @classmethod
    def address(cls, note: Mapping[str, Any], step: Path) -> tuple[str, str | None]:
        return note["name"], note["revision"]


def _download(name: str, commit: str) -> str:
    """This node's copy of the commit; only missing files are downloaded."""
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name, revision=commit, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
    )
