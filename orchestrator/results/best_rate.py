"""Each method at the learning rate that its search chose, beside the reference at its own chosen one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.planning.matches import Match
from results.search import Search

BestRates = Mapping[str, float]  # by method


def best_rates(searches: Sequence[Search] | None) -> BestRates:
    """The chosen rates; empty without a search."""
    return {search.method: search.learning_rate for search in searches or ()}


def at_best(method: str, reference: str, best: BestRates) -> list[tuple[Match, float, float]]:
    """The comparison's kind and the two rates; none where one of the two was not searched, or its search failed."""
    if method not in best or reference not in best:
        return []
    return [("best_rate", best[method], best[reference])]
