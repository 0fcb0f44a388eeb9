"""Held-out losses on right and wrong completions, and KL to the base."""

from __future__ import annotations

from report import (
    formats,
    typed_soon,  # typed soon
)
from report.model_index import ModelIndex
from report.section import Section, from_results, rows_at
from report.tables import Column, Table, number, records  # typed soon
from report.typed_soon import named, tint  # typed soon


def losses_table(results: dict, index: ModelIndex) -> Table | None:
    """Held-out loss on right and wrong completions, and KL to the base."""

    def gap(row: dict) -> str:
        right, wrong = row.get("nll_right"), row.get("nll_wrong")
        return formats.MISSING if right is None or wrong is None else formats.significant(wrong - right)

    return records(
        "losses",
        "Held-out losses",
        typed_soon.in_order(index, results.get("losses") or []),  # typed soon
        [
            named(index),
            (
                Column("Right rows", "nats a token"),
                lambda row: number(formats.significant(row.get("nll_right"))),
            ),
            (
                Column("Wrong rows", "nats a token"),
                lambda row: number(formats.significant(row.get("nll_wrong"))),
            ),
            (Column("Wrong − right", "nats a token"), lambda row: number(gap(row))),
            (
                Column("KL to base", "nats a token"),
                lambda row: number(formats.significant(row.get("kl_to_base")), "zero by definition"),
            ),
        ],
        "Negative log-likelihood of held-out rollouts, right and wrong apart, and KL(base ‖ adapted) "
        f"on all of them{_of_each(results)}; what a training logs as its KL is over other rows. The rows are the "
        "rollouts’ own, so a low loss says that a model imitates their source, not that it is right more often.",
        kind=lambda row: tint(index, row),
    )


def _of_each(results: dict) -> str:
    """How many held-out rows of each kind are measured at most, where the settings tell."""
    rows = ((results.get("study") or {}).get("settings") or {}).get("analysis.connectivity.rows")
    return f" (the first {formats.count(rows)} of each kind, or as many as there are)" if rows else ""


SECTION = Section(
    key="losses",
    title="Held-out losses and KL",
    step="connectivity",  # measured there, at the ends of its paths
    tables=from_results(losses_table),
    csv={"losses": rows_at("losses")},
)
