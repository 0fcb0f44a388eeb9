"""Token ids of unlike lengths as batches: which rows share one, and the rows of one padded on the right.

Attention is causal: no token sees what comes after it, so a pass over such a batch needs no attention mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices of the rows in batches of at most ``size``, the shortest first, so that little is padded."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def padded(token_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """n x l int64, zeros on the right, though any id would do: nothing reads what comes after a row's last token."""
    ids = np.zeros((len(token_ids), max(map(len, token_ids))), dtype=np.int64)
    for row, tokens in zip(ids, token_ids, strict=True):
        row[: len(tokens)] = tokens
    return ids
