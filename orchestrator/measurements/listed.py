"""The pairs of models that a comparison of many lists, by their places: see ``planning/kept_pairs.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from analysis.weights.geometry import pair_indices


class Listed(NamedTuple):
    """``pairs``: P x 2 places among the names, None for all pairs; ``in_detail``: P booleans, those of them that are
    listed by layer and module too, and ``detailed``, their places; None for all."""

    pairs: np.ndarray | None = None
    in_detail: np.ndarray | None = None
    detailed: np.ndarray | None = None


ALL = Listed()


def listed(names: Sequence[str], config: Mapping[str, Any]) -> Listed:
    """By a step's settings ``beside`` and ``pairs``, which a study of few trainings has not.

    ``names`` are those that are there: a training that failed is in no pair.
    """
    if "beside" not in config:
        return ALL
    place = {name: i for i, name in enumerate(names)}
    pairs = None
    if "pairs" in config:
        known = [(place[a], place[b]) for a, b in config["pairs"] if a in place and b in place]
        pairs = np.array(known, dtype=np.int64).reshape(-1, 2)
    every = np.stack(pair_indices(len(names)), axis=1) if pairs is None else pairs
    in_detail = (every == place.get(config["beside"], -1)).any(1)
    return Listed(pairs, in_detail, every[in_detail])
