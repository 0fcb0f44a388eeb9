"""What every kind of base answers: what it is, its sizes before it is loaded, how its folder is made ready."""

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

PLACES = {"path", "package", "revision", "shape"}  # settings that say where a base is, or guess at its sizes


class Shape(Frozen):
    """The architecture's sizes: to make a model, or to plan one that is not at hand."""

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
    """One kind of base: its settings, and the answers that the rest asks for instead of asking which kind it is.

    The methods of an instance read files' headers at most and load no model. Class methods work on a step's config or
    on the note of a finished base step, where the spec itself is no longer at hand.
    """

    if TYPE_CHECKING:  # each kind declares these itself, in the order in which its settings are written
        kind: str
        name: str
        shape: Shape | None

    @property
    def locator(self) -> str:
        """Under which name the resolved inputs hold what this base is."""
        place = (getattr(self, field, None) or "" for field in ("revision", "path", "package"))
        return ":".join(["base", self.name, *place])

    @property
    def local_path(self) -> str | None:
        """The folder that every node must see; None where each node fetches or makes its own."""
        return None

    @abstractmethod
    def identity(self, resolver: Resolver) -> str | None:
        """A content hash or a commit; None where the settings are all that decides. ``UserError``: it is not there."""

    def step_config(self, resolved: Mapping[str, str]) -> dict[str, Any]:
        """What decides the model: the settings but for places, and the content that they were resolved to."""
        return self.model_dump(exclude=PLACES) | {"content": resolved[self.locator]}

    def step_where(self) -> dict[str, Any]:
        """Where the step finds the model; no part of its identity."""
        return {place: value for place in ("path", "package") if (value := getattr(self, place, None))}

    def sizes(self) -> dict[str, Any]:
        """The fields of ``Shape`` as the base's own files tell them, None for those that they do not tell."""
        return {}

    def known_shape(self) -> Shape | None:
        """The shape that the study gives, or the base's own files on this machine; None where neither does."""
        if self.shape is not None:
            return self.shape
        try:
            return Shape.model_validate(self.sizes())
        except ValueError:
            return None

    def shaped(self) -> Any:
        """This base with its shape, where its files tell it."""
        shape = None if self.shape else self.known_shape()
        return self.model_copy(update={"shape": shape}) if shape else self

    def positions(self) -> int | None:
        """The longest text that the base takes, in tokens; None where only its download would tell."""
        return None

    def own_template(self) -> tuple[str | None, dict[str, str]]:
        """The chat template that lies with it on this machine, and its special tokens; None where there is none."""
        return None, {}

    def module_sizes(self) -> dict[str, tuple[int, int]] | None:
        """Modules with a weight matrix inside the layers, and its two sides; None where only loading would tell."""
        return None

    @classmethod
    @abstractmethod
    def make(
        cls, config: Mapping[str, Any], where: Mapping[str, Any], out: Path, progress: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]]:
        """The folder that Transformers loads, written to ``out`` where it is made, and what the step's note adds."""

    @classmethod
    def seconds(cls, config: Mapping[str, Any]) -> float:
        """Estimated time of ``make``: what is read or downloaded takes none."""
        return 0.0

    @classmethod
    def folder(cls, note: Mapping[str, Any], step: Path) -> Path:
        """Where the model of the finished base step in the folder ``step`` lies on this node, by its ``note``."""
        folder = Path(note.get("folder", step / "model"))
        if not folder.is_dir():
            raise ValueError(
                f"the base model is not at {folder} any more: put it back, or delete {step} to find it anew"
            )
        return folder

    @classmethod
    def address(cls, note: Mapping[str, Any], step: Path) -> tuple[str, str | None]:
        """Where others find that model: its name on the hub and the commit, else its folder and None."""
        return str(cls.folder(note, step).resolve()), None
