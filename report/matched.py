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
        or row.matched not in ("learning rate", "as published")
        or (row.matched == "learning rate" and own is not None and row.learning_rate != own.learning_rate)
        for row in found
    )
    return found if more else []


def covered(results: Results) -> set[str]:
    """The trainings that stand in it beside the reference's at one rate."""
    held = [row for row in rows(results) if row.matched == "learning rate"]
    return {name for row in held for name in (*row.trainings, *row.reference_trainings)}


def missing(results: Results) -> dict[str, list[str]]:
    """The methods of which no trainings agree with the reference's in a quantity that the study's ``matches`` ask for.

    By quantity, of those that are known only once the trainings are done.
    """
    asked, found = results.setting("matches"), results.matched or []
    wanted = asked if isinstance(asked, list) else []
    methods = [row.name for row in results.trainings if row.role == "method" and row.name != results.reference]
    held = {
        quantity: {training.method for row in found if quantity in row.equal and "learning rate" in row.equal
                   for training in (results.training(row.trainings[0]),) if training}
        for quantity in ("tokens", "problems")
        if quantity in wanted
    }  # fmt: skip
    lacking = {quantity: [name for name in methods if name not in names] for quantity, names in held.items()}
    return {quantity: names for quantity, names in lacking.items() if names}
