"""What the Gram of all updates tells of a study: multiples, spans, and how much of the spread is the methods'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.gram import Gram, along, projection, variance

ALONE = ("method", "sweep", "order", "rate")  # roles of one initial A: another one makes a direction of its own


def directions(
    names: Sequence[str],
    gram: Gram,
    reference: str,
    methods: Mapping[str, str],
    roles: Mapping[str, str],
    seed: int = 0,
) -> dict:
    """{"adapters": one entry each, "variance": of the directions by method, None where it cannot be told}.

    An entry has scale and left_over: the multiple of the reference's update that is nearest, and the share of the norm
    that it misses; span_left_over and span_rank: the same for the span of the other methods' own trainings. ``methods``
    and ``roles`` are by name; an adapter that has none is a method of its own.
    """
    place = {name: i for i, name in enumerate(names)}
    method = {name: methods.get(name, name) for name in names}
    role = {name: roles.get(name, "method") for name in names}
    entries = []
    for name in names:
        others = [n for n in names if role[n] == "method" and method[n] != method[name]]
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
    kept = [name for name in names if role[name] in ALONE]
    labels = [method[name] for name in kept]
    told = None
    if 1 < len(set(labels)) < len(labels):
        rows = [place[name] for name in kept]
        part = np.asarray(gram, dtype=np.float64)[np.ix_(rows, rows)]
        told = variance(part, labels, unit=True, generator=np.random.default_rng(seed))
    return {"adapters": entries, "variance": told}
