"""A base with random weights at a given shape, identified by its settings: to rehearse a study's memory and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from execution.settings import Count, Seed
from orchestrator.bases.base import BaseSpec, Shape
from orchestrator.config.values import Name
from orchestrator.planning import cost

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver


class RandomBase(BaseSpec):
    """A Qwen3 of any shape with random weights, and the word-and-digit tokenizer of from_scratch bases.

    ``shape.vocabulary`` is the number of rows of its embeddings (None: as many as the tokenizer has tokens); the
    tokenizer uses the first of them. What it says is noise: nothing but memory, time and errors is learnt from it.
    """

    kind: Literal["random"]
    name: Name = "random"
    shape: Shape
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the weights' file
    longest: Count = 32768  # tokens of a row
    seed: Seed = 0

    def identity(self, resolver: Resolver) -> None:
        return None

    def step_config(self, resolved: Mapping[str, str]) -> dict[str, Any]:
        return self.model_dump()

    def positions(self) -> int:
        return self.longest

    def module_sizes(self) -> dict[str, tuple[int, int]]:
        return cost.layer_modules(self.shape)

    @classmethod
    def make(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], out: Path, progress: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]]:
        import torch
        from transformers import Qwen3ForCausalLM

        from orchestrator.bases import scratch

        fast = scratch.tokenizer()
        rows = config["shape"]["vocabulary"] or len(fast)
        if rows < len(fast):
            raise ValueError(f"base.shape.vocabulary: {rows} are fewer than the tokenizer's {len(fast)} tokens")
        usual = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, config["precision"]))  # never a copy of the weights in float32
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config["seed"])
                model = Qwen3ForCausalLM(scratch.architecture(rows, config["shape"], config["longest"]))
        finally:
            torch.set_default_dtype(usual)
        model.eval().save_pretrained(out)
        fast.save_pretrained(out)
        return out, {}
