"""One method along its learning rate: norm, cosine, losses and accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from report import formats  # typed soon
from report import typed_soon as headline  # typed soon
from report.model_index import BASE, ModelIndex, distinct  # typed soon
from report.plotting import (
    FLOOR,
    PAGE,
    Canvas,
    Made,
    called,
    floor_label,
    gathered,
    log_axis,
    numbers,
    rate_axis,
    short,
)
from report.section import Section, from_results, rows_at
from report.tables import Cell, Column, Table, number, records, text
from report.typed_soon import other  # typed soon

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sweep_table(results: dict, index: ModelIndex) -> Table | None:
    """The learning-rate sweep, a row a point."""
    sweep = results.get("sweep") or {}
    points = sorted(sweep.get("points") or [], key=lambda row: row.get("learning_rate") or 0.0)
    names = list(dict.fromkeys(task for row in points for task in row.get("accuracy") or {}))
    matched = sweep.get("matched_learning_rate")

    def accuracy(task: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.percent((row.get("accuracy") or {}).get(task)), "not evaluated")

    def shown(row: dict) -> str:
        same = row.get("learning_rate") is not None and row["learning_rate"] == matched
        return f"{formats.rate(row.get('learning_rate'))}{' (matched)' if same else ''}"

    reference = index.label(index.reference)
    return records(
        "sweep",
        f"Sweep of {index.label(sweep.get('method'))}’s learning rate",
        points,
        [
            (Column("Learning rate", kind="text"), lambda row: text(shown(row))),
            (
                Column("Norm", "‖ΔW‖"),
                lambda row: number(formats.significant(row.get("norm")), _failed(index, row)),
            ),
            (
                Column("Cosine", f"to {reference}"),
                lambda row: number(formats.cosine(row.get("cosine_to_sft")), _failed(index, row)),
            ),
            (
                Column("A moved", "‖A−A₀‖ / ‖A₀‖"),
                lambda row: number(formats.significant(row.get("a_moved_rel")), _failed(index, row)),
            ),
            (
                Column("Held-out loss", "right rows, nats a token"),
                lambda row: number(formats.significant(row.get("nll_right")), _failed(index, row)),
            ),
            *((Column(headline.task_title(results, task), "right"), accuracy(task)) for task in names),
        ],
        f"One training a rate, same steps. The matched rate ({formats.rate(matched)}) is the one that the "
        "other methods use. The sweep moves one method’s rate only: it cannot tell what the others would "
        "do at other rates.",
    )


def _failed(index: ModelIndex, row: dict) -> str:
    model = index.models.get(row.get("name") or "")
    return f"failed: {model.error}" if model and model.error else "not measured"


def sweep(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Norm, cosine to the reference and accuracy against one method's learning rate."""
    found = results.get("sweep") or {}
    points = [row for row in found.get("points") or [] if row.get("learning_rate")]
    points.sort(key=lambda row: row["learning_rate"])
    if not points:
        return None
    rates = [row["learning_rate"] for row in points]
    method = index.models.get(found.get("method") or points[0].get("name"))
    colour = method.colour if method else "#D55E00"
    figure, (panels,) = canvas.grid(PAGE, 2.9, 1, 3)
    for axes in panels:
        if found.get("matched_learning_rate"):
            axes.axvline(found["matched_learning_rate"], color="#0072B2", linewidth=3, alpha=0.22, label="matched rate")
        rate_axis(axes, rates)
        for row in points:
            model = index.models.get(row.get("name") or "")
            if model and model.error:
                axes.text(row["learning_rate"], 0.04, "failed", transform=axes.get_xaxis_transform(),
                          rotation=90, ha="center", va="bottom", fontsize=7, color="#A02000")  # fmt: skip
    line = {
        "color": colour,
        "marker": "P",
        "label": f"{called(index, found.get('method') or 'swept method')}, norm and cosine",
    }
    _norm_panel(panels[0], points, line, results, index)
    _cosine_panel(panels[1], points, line, results, index)
    _accuracy_panel(panels[2], points, colour, results)
    gathered(figure, columns=3)
    title = f"{index.label(found.get('method') or 'the swept method')} along its learning rate"
    return (
        figure,
        title,
        (
            "One training a point, the same number of steps. Blue band: the rate of the other methods. "
            f"Grey lines: floors ({index.label(index.reference)} again, with another order of rows or initial A), "
            "the base’s accuracy, and in the first panel the norm in proportion to the rate, drawn "
            "through the smallest rate: what Adam gives if every step goes the same way. A gap in a line "
            "is a training that failed."
        ),
    )


def _norm_panel(axes: Axes, points: list[dict], line: dict, results: dict, index: ModelIndex) -> None:
    rates, norms = (
        numbers([row["learning_rate"] for row in points]),
        numbers([row.get("norm") for row in points]),
    )
    axes.plot(rates, norms, **line)
    good = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    if len(good):
        null = norms[good[0]] * rates / rates[good[0]]
        axes.plot(rates, null, color=FLOOR, linestyle="--", label="norm in proportion to rate")
        reference = headline.reference_norm(results, index)
        seen = [*norms[good], *null, *([reference] if reference else [])]
        log_axis(axes, "y", min(seen) / 1.4, max(seen) * 1.4)
        if reference:
            axes.axhline(
                reference,
                color="#0072B2",
                linewidth=0.9,
                label=f"{called(index, index.reference)}’s norm",
            )
    axes.set_ylabel("‖ΔW‖ (log scale)")


def _cosine_panel(axes: Axes, points: list[dict], line: dict, results: dict, index: ModelIndex) -> None:
    rates = numbers([row["learning_rate"] for row in points])
    axes.plot(rates, numbers([row.get("cosine_to_sft") for row in points]), **line)
    styles = {"order": "-.", "init": ":"}
    for kind, entry in headline.pairs_of_floors(results):
        value, replica = entry.get("cosine"), other(entry, index.reference)
        if kind in styles and value is not None and replica is not None:
            axes.axhline(value, color=FLOOR, linestyle=styles[kind], linewidth=1, label=floor_label(index, replica))
    axes.set_ylabel(f"cosine to {called(index, index.reference)}")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0) - 0.03, max(high, 1.03))


def _accuracy_panel(axes: Axes, points: list[dict], colour: str, results: dict) -> None:
    rates = numbers([row["learning_rate"] for row in points])
    tasks = list(dict.fromkeys(task for row in points for task in row.get("accuracy") or {}))
    names = distinct(tasks, lambda task: short(headline.task_title(results, task), 28))
    for i, task in enumerate(tasks):
        name, marker, dashes = names[task], "Po^Dv"[i % 5], ("-", "--", ":", "-.")[i % 4]
        values = 100 * numbers([(row.get("accuracy") or {}).get(task) for row in points])
        axes.plot(rates, values, color=colour, marker=marker, linestyle=dashes, label=f"right, {name}")
        base = headline.verdict(results, task, BASE).get("accuracy")
        if base is not None:
            axes.axhline(100 * base, color="#000000", linewidth=0.7, linestyle=dashes, label=f"base, {name}")
    axes.set_ylabel("right, %")


SECTION = Section(
    key="sweep",
    title="Is the learning rate the cause?",
    step="train",
    tables=from_results(sweep_table),
    figures={"sweep": sweep},
    csv={"sweep": rows_at("sweep", "points")},
)
