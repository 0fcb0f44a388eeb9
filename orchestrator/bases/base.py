"""The interface of every kind of base: identity, sizes before loading, preparation of its folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from execution.settings import Count
from orchestrator.config.values import Frozen

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver

PLACES = {"path", "package", "revision", "shape"}  # settings for a base's location or assumed sizes


class Shape(Frozen):
    """The architecture's sizes, to create a model or to plan with one that is not downloaded."""

    layers: Count
    hidden: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    intermediate: Count
    vocabulary: Count | None = None

    @model_validator(mode="after")
    def _attention(self) -> Shape:
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise ValueError("heads must be a multiple of kv_heads, and head_dim even")
        return self


class BaseSpec(Frozen):
    """One kind of base: its settings and its behaviour, so that no other code depends on the kind.

    Instance methods read at most file headers and load no model. Class methods work on a step's config or on the note
    of a finished base step, where the spec is not available.
    """

    if TYPE_CHECKING:  # each kind declares these itself, in the order in which its settings are written
        kind: str
        name: str
        shape: Shape | None

    @property
    def locator(self) -> str:
        """The base's name among the resolved inputs."""
        place = (getattr(self, field, None) or "" for field in ("revision", "path", "package"))
        return ":".join(["base", self.name, *place])

    @property
    def local_path(self) -> str | None:
        """The folder that every node must see; None if each node fetches or creates its own."""
        return None

    @abstractmethod
    def identity(self, resolver: Resolver) -> str | None:
        """A content hash or a commit; None if the settings determine the base. ``UserError`` if it is missing."""

    def step_config(self, resolved: Mapping[str, str]) -> dict[str, Any]:
        """What determines the model: the settings without ``PLACES``, and the resolved content."""
        return self.model_dump(exclude=PLACES) | {"content": resolved[self.locator]}

    def step_where(self) -> dict[str, Any]:
        """The step's runtime inputs: where the model is; not part of its identity."""
        return {place: value for place in ("path", "package") if (value := getattr(self, place, None))}

    def sizes(self) -> dict[str, Any]:
        """The fields of ``Shape`` from the base's own files, None for unknown ones."""
        return {}

    def known_shape(self) -> Shape | None:
        """The study's shape, else that of the base's files on this machine; None if neither is known."""
        if self.shape is not None:
            return self.shape
        try:
            return Shape.model_validate(self.sizes())
        except ValueError:
            return None

    def shaped(self) -> Any:
        """This base with its shape filled in, if known."""
        shape = None if self.shape else self.known_shape()
        return self.model_copy(update={"shape": shape}) if shape else self

    def positions(self) -> int | None:
        """The largest number of tokens that the base takes; None if unknown before its download."""
        return None

    def own_template(self) -> tuple[str | None, dict[str, str]]:
        """The base's chat template on this machine (None if there is none), and its special tokens."""
        return None, {}

    def vocabulary(self) -> Any:
        """The tokenizer's tokens and their ids, to be compared; None if they are not on this machine."""
        return None

    def module_sizes(self) -> dict[str, tuple[int, int]] | None:
        """Modules with a weight matrix inside the layers -> its two dimensions; None if unknown before loading."""
        return None

    @classmethod
    @abstractmethod
    def make(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], out: Path, progress: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]]:
        """Prepare the model, in ``out`` if files are written; returns its folder and additions to the step's note."""

    @classmethod
    def seconds(cls, config: Mapping[str, Any]) -> float:
        """Estimated seconds of ``make``, without reading and downloading."""
        return 0.0

    @classmethod
    def folder(cls, note: Mapping[str, Any], step: Path) -> Path:
        """The model's folder on this node, from the folder ``step`` of the finished base step and its ``note``."""
        folder = Path(note.get("folder", step / "model"))
        if not folder.is_dir():
            raise ValueError(
                f"the base model is no longer at {folder}: put it back, or delete {step} to prepare it again"
            )
        return folder

    @classmethod
    def address(cls, note: Mapping[str, Any], step: Path) -> tuple[str, str | None]:
        """Where PEFT can load that model from: its hub name and commit, else its folder and None."""
        return str(cls.folder(note, step).resolve()), None
