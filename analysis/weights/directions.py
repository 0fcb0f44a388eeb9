"""A study's updates from their Gram: nearest multiples, projections on spans, variance between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.weights.gram import Gram, along, as_matrix, projection, variance
from analysis.weights.replicas import Run, families


def directions(
    known: Sequence[Run], gram: Gram, reference: str, method_of: Mapping[str, str] | None = None, seed: int = 0
) -> dict:
    """{"adapters": one entry each, "variance": analysis of variance of the directions by method, or None}.

    ``known`` are the runs in the Gram's order. An entry has scale and left_over: the nearest multiple of the
    reference's update and the fraction of the norm that it misses; span_left_over and span_rank: the same for the span
    of the other methods' main trainings, of which there are span_of. ``method_of`` gives, by run name, what counts
    as the same method there.

    The variance is over methods at their own learning rate and the reference's initial A, each with its runs in other
    row orders: only these are exchangeable. Runs with another rate or initial A are left out. It adds methods (their
    number) and repeated (how many have several runs); None if no method has several runs or there is one method.
    """
    gram = as_matrix(gram)  # once: every call below would copy lists anew
    place = {run.name: i for i, run in enumerate(known)}
    methods = method_of or {run.name: run.method for run in known}
    own = [run.name for run in known if run.name == run.method]
    entries = []
    for name in place:
        others = [n for n in own if methods[n] != methods[name]]
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
    return {"adapters": entries, "variance": _variance(known, gram, reference, seed)}


def _variance(known: Sequence[Run], gram: Gram, reference: str, seed: int) -> dict | None:
    place = {run.name: i for i, run in enumerate(known)}
    begun = known[place[reference]].family[2:]
    own = {(run.method, run.learning_rate) for run in known if run.name == run.method}
    squares = np.asarray(gram, dtype=np.float64).diagonal()
    kept = [run for run in known if run.family[2:] == begun and (run.method, run.learning_rate) in own]
    kept = [run for run in kept if squares[place[run.name]] > 0]  # a zero update has no direction
    sizes = [len(of) for of in families(kept).values()]
    if len(sizes) < 2 or max(sizes) < 2:
        return None
    rows = [place[run.name] for run in kept]
    part = np.asarray(gram, dtype=np.float64)[np.ix_(rows, rows)]
    labels = [run.family for run in kept]
    analysis = variance(part, labels, unit=True, generator=np.random.default_rng(seed))
    return analysis | {"methods": len(sizes), "repeated": sum(size > 1 for size in sizes)}
