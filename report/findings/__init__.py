"""A few sentences that say what the numbers hold, and no more.

Each is a ``Claim``: the outcome of a rule over all runs that there are, kept with what it was made from. A sentence on
directions holds for every pair of runs, beside what a new order of rows gives (``direction``, ``rate``); one on
accuracies is a paired test's (``function``); ``limits`` tells what they rest on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from report.findings import attribution, direction, function, limits, rate
from report.findings.claim import Claim
from report.findings.evidence import evidence
from report.headline import Row
from report.model_index import ModelIndex
from results import Results


@dataclass(frozen=True)
class Findings:
    """``claims`` in reading order; ``warnings``: the limits of all of them."""

    claims: tuple[Claim, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def lead(self) -> str:
        """The answer, as one paragraph."""
        return self._paragraphs().get(direction.LEAD, "")

    @property
    def points(self) -> list[str]:
        """What the answer rests on, a paragraph each."""
        return [words for point, words in self._paragraphs().items() if point != direction.LEAD]

    @property
    def by_factor(self) -> bool:
        """Whether the answer is which factor turns the updates."""
        return any(claim.kind == attribution.TURNS for claim in self.claims)

    def _paragraphs(self) -> dict[str, str]:
        paragraphs: dict[str, list[str]] = {}
        for claim in self.claims:
            paragraphs.setdefault(claim.point, []).append(claim.words)
        return {point: " ".join(words) for point, words in paragraphs.items()}


def findings(results: Results, index: ModelIndex, rows: Sequence[Row]) -> Findings:
    """The opening sentences of a report, from ``results`` and its headline ``rows``."""
    warnings = tuple(limits.warnings(results, index))
    if index.reference is None:
        nothing = "No model to compare with: these results hold no update."
        return Findings((Claim("nothing", direction.LEAD, nothing),), warnings)
    ev = evidence(results, index)
    lead, turned, rates = direction.lead(ev), attribution.points(results, index), rate.points(ev, rows)
    if any(claim.kind == attribution.TURNS for claim in turned):  # the answer of a factorial: what moves the updates
        turned = [replace(claim, point=direction.LEAD) for claim in turned]
        moved = [replace(claim, point=direction.LEAD) for claim in rates]
        claims = [lead[0], *turned, *moved, *(replace(claim, point="directions") for claim in lead[1:])]
        rates = []
    else:
        claims = [*lead, *turned]
    claims += [*rates, *direction.floors(ev, claims), *rate.norms(ev, rows)]
    return Findings((*claims, *function.points(results, index), *limits.learning(results)), warnings)


__all__ = ["Claim", "Findings", "findings"]
