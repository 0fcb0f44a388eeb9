"""LoRA on a CPU under vLLM: an adapter's two factors as two matrix products.

vLLM's own CPU kernels copy an adapter's factors for every token of the batch, and index with -1 for a token of the
base, which reads the last adapter: in a mixed batch, base requests are answered by an adapter. Here each adapter is
applied to its own rows, and rows of the base are unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker

Rows = torch.Tensor | slice

# Letters in shapes: n tokens, i inputs, o outputs, r rank.


def rows_by_slot(indices: torch.Tensor) -> list[tuple[int, Rows]]:
    """(adapter's slot, its rows) for each adapter in ``indices`` (one slot per row, -1 for the base)."""
    slots = indices.unique().tolist()
    if len(slots) == 1:
        return [(slots[0], slice(None))] if slots[0] >= 0 else []
    return [(slot, (indices == slot).nonzero()[:, 0]) for slot in slots if slot >= 0]


def add_delta(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, rows: Rows) -> None:
    """y[rows] += scale * x[rows] A^T B^T in float32; y n x o, x n x i, A r x i, B o x r."""
    delta = (x[rows].float() @ a.float().T) @ b.float().T
    y[rows] += (scale * delta).to(y.dtype)


class MatmulPunica(PunicaWrapperCPU):
    """vLLM's CPU LoRA wrapper with its kernels for linear layers and the head replaced."""

    def update_metadata(
        self,
        mapping: LoRAMapping,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        """Store which adapter each token and each sampled row belongs to."""
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self.token_rows = rows_by_slot(self.token_lora_indices)
        self.sampler_rows = rows_by_slot(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """Add the delta of each slice (q, k, v of one fused layer) to ``y`` in place.

        The stacked factors are slots x 1 x r x i and slots x 1 x o x r; ``output_slices`` are the slices' widths.
        """
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        start = 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            for slot, rows in self.token_rows:
                add_delta(y[:, start : start + width], x, a[slot, 0], b[slot, 0], scale, rows)
            start += width

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **kwargs: Any,
    ) -> None:
        """As ``add_lora_linear`` for the head's rows; either side's padded vocabulary may be wider."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self.sampler_rows:
            b = lora_b_stacked[slot, 0]
            width = min(b.shape[0], y.shape[1])
            if bool(b.any()):  # this project's adapters do not adapt the head: the factors are zeros
                add_delta(y[:, :width], x, lora_a_stacked[slot, 0], b[:width], scale, rows)


class MatmulWorker(CPUWorker):
    """vLLM's CPU worker with ``MatmulPunica`` for LoRA layers."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model as vLLM does, while the platform names this module's wrapper."""
        name = f"{__name__}.{MatmulPunica.__name__}"
        current_platform.get_punica_wrapper = lambda: name  # type: ignore[method-assign]
        try:
            super().load_model(*args, **kwargs)
        finally:
            del current_platform.get_punica_wrapper  # restores the class's method
