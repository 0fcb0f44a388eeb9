"""Which comparisons at equal settings have a table of their own."""

from __future__ import annotations

from results import Results
from results.matched import MatchedRow


def rows(results: Results) -> list[MatchedRow]:
    """The rows of that table; none where the headline has all of it: one training of each, at the reference's rate."""
    own = results.training(results.reference)
    found = results.matched or []
    more = any(
        len(row.trainings) > 1
        or len(row.reference_trainings) > 1
        or row.matched == "best rate"
        or (row.matched == "learning rate" and own is not None and row.learning_rate != own.learning_rate)
        for row in found
    )
    return found if more else []


def covered(results: Results) -> set[str]:
    """The trainings that stand in it beside the reference's at one rate."""
    held = [row for row in rows(results) if row.matched == "learning rate"]
    return {name for row in held for name in (*row.trainings, *row.reference_trainings)}
