"""A base that the study pretrains itself, identified by its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from execution.settings import Count, Positive, Seed, Share
from orchestrator.bases.base import BaseSpec, Shape
from orchestrator.config.values import Name
from orchestrator.planning import cost

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver

SCRATCH_POSITIONS = 256  # position limit of such a base
SCRATCH_TOKENS = 40  # per pretraining text, for the time estimate


class ScratchBase(BaseSpec):
    """A small Qwen3 that the study pretrains on arithmetic with a planted failure."""

    kind: Literal["from_scratch"]
    name: Name = "scratch"
    shape: Shape = Shape(layers=4, hidden=128, heads=4, kv_heads=2, head_dim=32, intermediate=384)
    steps: Count = 400
    batch: Count = 64
    learning_rate: Positive = 3e-3
    seed: Seed = 0
    hard_share: Share = 0.8
    teacher_share: Share = 0.4
    largest: Annotated[int, Field(ge=2)] = 30  # number in its problems, and in those of rollouts and evaluation
    threads: Count = 1

    def identity(self, resolver: Resolver) -> None:
        return None

    def step_config(self, resolved: Mapping[str, str]) -> dict[str, Any]:
        return self.model_dump()

    def positions(self) -> int:
        return SCRATCH_POSITIONS

    def module_sizes(self) -> dict[str, tuple[int, int]]:
        return cost.layer_modules(self.shape)

    @classmethod
    def make(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], out: Path, progress: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]]:
        from orchestrator.bases import scratch

        settings = {k: v for k, v in config.items() if k not in ("kind", "name", "threads")}
        settings["shape"] = {k: v for k, v in settings["shape"].items() if v is not None}
        scratch.pretrain(out, progress=progress, **settings)
        return out, {}

    @classmethod
    def seconds(cls, config: Mapping[str, Any]) -> float:
        own = Shape(**config["shape"])
        return config["steps"] * config["batch"] * SCRATCH_TOKENS * 6 * cost.parameters(own) / cost.CPU_FLOPS
