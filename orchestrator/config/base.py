"""The base model of a study, in its four kinds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.config.values import Count, Frozen, Name, Positive, Revision, Seed, Share

SCRATCH_POSITIONS = 256  # tokens that a base made here takes


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


class ScratchBase(Frozen):
    """A small Qwen3 that the study pretrains itself on arithmetic with a planted failure."""

    kind: Literal["from_scratch"]
    name: Name = "scratch"
    shape: Shape = Shape(layers=4, hidden=128, heads=4, kv_heads=2, head_dim=32, intermediate=384)
    steps: Count = 400
    batch: Count = 64
    learning_rate: Positive = 3e-3
    seed: Seed = 0
    hard_share: Share = 0.8
    teacher_share: Share = 0.4
    largest: Annotated[int, Field(ge=2)] = 30  # number in its problems; those of rollouts and evaluation likewise
    threads: Count = 1


class HubBase(Frozen):
    """A model on the Hugging Face hub, by name; ``revision`` is resolved to a commit once and pinned."""

    kind: Literal["hub"]
    name: Annotated[str, Field(pattern=r"^([\w.-]+/)?[\w.-]+$", max_length=96)]
    revision: Revision = "main"
    shape: Shape | None = None


class LocalBase(Frozen):
    """A folder with a model in safetensors, its config and its tokenizer."""

    kind: Literal["local"]
    name: Name
    path: str
    shape: Shape | None = None


class GgufBase(Frozen):
    """One GGUF file, by path or out of an installed package; its weights are read back as float32."""

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


Base = Annotated[ScratchBase | HubBase | LocalBase | GgufBase, Field(discriminator="kind")]
