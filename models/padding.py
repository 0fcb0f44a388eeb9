"""Batches of rows by length, padded on the right.

Attention is causal, so a forward pass over right-padded rows needs no attention mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield batches of at most ``size`` row indices, shortest rows first, so that there is little padding."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def padded(token_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """n x l int64, padded with zeros on the right (any id would do: causal attention never reads them)."""
    ids = np.zeros((len(token_ids), max(map(len, token_ids))), dtype=np.int64)
    for row, tokens in zip(ids, token_ids, strict=True):
        row[: len(tokens)] = tokens
    return ids
