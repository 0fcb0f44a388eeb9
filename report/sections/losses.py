"""Held-out losses on right and wrong completions, and KL to the base."""

from __future__ import annotations

from report import formats
from report.model_index import ModelIndex
from report.section import Section, csv_of, from_results
from report.tables import Column, Table, named, number, records, tint
from results import Results
from results.function import Losses


def losses_table(results: Results, index: ModelIndex) -> Table | None:
    """Held-out loss on right and wrong completions, and KL to the base."""

    def gap(row: Losses) -> float | None:
        return None if row.nll_right is None or row.nll_wrong is None else row.nll_wrong - row.nll_right

    return records(
        "losses",
        "Held-out losses",
        index.in_order(results.losses or []),
        [
            named(index),
            (Column("Right rows", "nats a token"), lambda row: number(formats.significant(row.nll_right))),
            (Column("Wrong rows", "nats a token"), lambda row: number(formats.significant(row.nll_wrong))),
            (Column("Wrong − right", "nats a token"), lambda row: number(formats.significant(gap(row)))),
            (
                Column("KL to base", "nats a token"),
                lambda row: number(formats.significant(row.kl_to_base), "zero by definition"),
            ),
        ],
        "Negative log-likelihood of held-out rollouts, right and wrong apart, and KL(base ‖ adapted) "
        f"on all of them{_of_each(results)}; what a training logs as its KL is over other rows. The rows are the "
        "rollouts’ own, so a low loss says that a model imitates their source, not that it is right more often.",
        kind=lambda row: tint(index, row),
    )


def _of_each(results: Results) -> str:
    """How many held-out rows of each kind are measured at most, where the settings tell."""
    rows = results.setting("analysis.connectivity.rows")
    if not isinstance(rows, int):
        return ""
    return f" (the first {formats.count(rows)} of each kind, or as many as there are)"


SECTION = Section(
    key="losses",
    title="Held-out losses and KL",
    step="losses",
    tables=from_results(losses_table),
    csv=csv_of(lambda results: results.losses, {"losses": lambda losses: losses}),
)
