"""The peak memory of one training, estimated from a study's settings, and a run's line that holds it to what was seen.

Parts that are never there together are not added: the output head's logits are gone before a layer's activations are
made again. Constants are of Qwen3 at 4B widths, seen on a CPU (``docs/training.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods import METHODS

if TYPE_CHECKING:
    from orchestrator.bases.base import Shape
    from orchestrator.config.study import Study

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
ADAPTER_BYTES = 16  # a parameter: weight, gradient and two moments, float32
# Activations a token of one layer, in multiples of the hidden size: kept for the backward pass; and, with their
# gradients, while a layer that was checkpointed is made again.
KEPT, AGAIN = 44, 64
LOGIT_BYTES = 16  # of the chunk's logits, in float32 too if they are not, their softmax and both gradients
PROCESS_GIB = 0.75  # Python, torch and Ray on a CPU


@dataclass(frozen=True)
class Memory:
    """Parts of a training's peak in GiB. ``process`` is on a CPU alone."""

    weights: float
    adapter: float
    kept: float  # of all layers until the backward pass
    passing: float  # one layer's activations, or the head's logits: the larger of them
    process: float = PROCESS_GIB

    @property
    def device(self) -> float:
        """What a GPU holds."""
        return self.weights + self.adapter + self.kept + self.passing

    @property
    def cpu(self) -> float:
        """What a process on a CPU holds."""
        return self.device + self.process


def training_memory(study: Study, shape: Shape, weights: float, adapter: int) -> Memory:
    """Of the study's training that takes most, by its method's rows a unit, at the longest rows that its limits allow.

    ``weights`` and ``adapter`` are numbers of parameters, of the base those that one worker holds.
    """
    training, prompt = study.training, study.prompt
    size = BYTES[training.precision]
    pairs = max(2 if METHODS[study.objective(name)].view == "pairs" else 1 for name in study.methods)
    rows = min(training.micro_batch, training.batch_size) * pairs
    answers = rows * prompt.max_answer_tokens
    tokens = rows * (prompt.max_prompt_tokens + prompt.max_answer_tokens)
    once = tokens * shape.hidden * size
    layer = once * AGAIN
    logits = min(training.head_chunk, answers) * (shape.vocabulary or 0) * LOGIT_BYTES
    checkpointed = training.gradient_checkpointing
    kept = shape.layers * once * (1 if checkpointed else KEPT)
    return Memory(
        weights=weights * size / GIB,
        adapter=adapter * ADAPTER_BYTES / GIB,
        kept=kept / GIB,
        passing=(max(layer, logits) if checkpointed else logits) / GIB,
    )


def seen_line(memory: Memory, provenance: Mapping[str, Any]) -> str | None:
    """The largest memory that a training of the run used, beside the estimate; None where no training ran."""
    trainings = [step for step in provenance["steps"] if step["step"].startswith("train/")]
    for key, estimated, what in (("gpu_peak_gib", memory.device, "GPU"), ("peak_gib", memory.cpu, "process")):
        seen = max(((step[key], step["step"]) for step in trainings if key in step), default=None)
        if seen is not None:
            return f"memory of a training's {what}: {seen[0]:.1f} GiB at most ({seen[1]}), {estimated:.1f} estimated"
    return None
