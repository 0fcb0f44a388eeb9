"""What the Gram of all updates tells of a study: multiples, spans, and how much of the spread is the methods'."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from analysis.gram import Gram, along, projection, variance


def directions(
    names: Sequence[str],
    gram: Gram,
    reference: str,
    methods: Mapping[str, str],
    own: Collection[str],
    one_init: Collection[str],
    seed: int = 0,
) -> dict:
    """{"adapters": one entry each, "variance": of the directions by method, None where it cannot be told}.

    An entry has scale and left_over: the multiple of the reference's update that is nearest, and the share of the norm
    that it misses; span_left_over and span_rank: the same for the span of the other methods' ``own`` trainings.
    ``methods`` tells each adapter's method, ``one_init`` which share the reference's initial A: another one makes a
    direction of its own, so the variance is over those.
    """
    place = {name: i for i, name in enumerate(names)}
    entries = []
    for name in names:
        others = [n for n in names if n in own and methods[n] != methods[name]]
        span = projection(gram, place[name], [place[n] for n in others]) if others else {"left_over": None, "rank": 0}
        entries.append(
            {
                "name": name,
                **along(gram, place[name], place[reference]),
                "span_left_over": span["left_over"],
                "span_rank": span["rank"],
                "span_of": len(others),
            }
        )
    kept = [name for name in names if name in one_init]
    labels = [methods[name] for name in kept]
    told = None
    if 1 < len(set(labels)) < len(labels):
        rows = [place[name] for name in kept]
        part = np.asarray(gram, dtype=np.float64)[np.ix_(rows, rows)]
        told = variance(part, labels, unit=True, generator=np.random.default_rng(seed))
    return {"adapters": entries, "variance": told}
