"""Where the updates lie in the singular directions of the base's own weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from report import formats
from report.model_index import Model, ModelIndex
from report.plotting import CHANCE, PAGE, Canvas, Made, called, gathered, log_axis, look
from report.section import Section, csv_of, from_results
from report.tables import ZERO_UPDATE, Cell, Column, Table, left_out, named, number, records, size, tint
from results import Results
from results.weights import Share, SpectraAdapter

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def spectra_table(results: Results, index: ModelIndex) -> Table | None:
    """Where each update lies in the base weights' own singular directions."""
    spectra = results.spectra
    if spectra is None:
        return None
    top = f"top {spectra.k}"

    def share(value: float | None) -> Cell:
        return number(formats.significant(value, 2), ZERO_UPDATE)

    def counted(row: Share) -> Cell:
        if not isinstance(row, SpectraAdapter):
            return number(formats.MISSING, "not defined for chance")
        return number(formats.count(row.intruders), ZERO_UPDATE)

    return records(
        "spectra",
        "Updates beside the base’s weights",
        [*index.in_order(spectra.adapters), spectra.chance],
        [
            named(index),
            (Column("In both", f"{top}, share of ‖ΔW‖²"), lambda row: share(row.both)),
            (Column("Output side", top), lambda row: share(row.left)),
            (Column("Input side", top), lambda row: share(row.right)),
            (Column("Size", "‖ΔW‖ / ‖W‖"), size("relative_norm", 2)),
            (Column("Intruders", "all modules"), counted),
        ],
        f"Share of the update’s squared norm within the {top} left, right, or both singular directions of the "
        f"base’s weight, over all modules. Intruders: among the {top} left singular vectors of W + ΔW, those whose "
        f"cosine to every one of W’s is below {formats.significant(spectra.threshold, 2)}."
        f"{left_out(spectra, 'All are over')}",
        kind=lambda row: tint(index, row, rate=True),
        folded=True,
    )


_SIDES: dict[str, Callable[[Share], float | None]] = {
    "output side": lambda share: share.left,
    "input side": lambda share: share.right,
    "both sides": lambda share: share.both,
}


def spectra(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Shares of the updates in the base weights' top singular directions, against chance."""
    measured = results.spectra
    rows = [row for row in index.in_order(measured.adapters) if row.both] if measured else []
    if measured is None or not rows:
        return None
    figure, grid = canvas.grid(PAGE, 1.5 + 0.2 * len(rows), 1, len(_SIDES), sharey=True)
    ends = [value for share in (*rows, measured.chance) for side in _SIDES.values() if (value := side(share))]
    for axes, (words, side) in zip(grid[0], _SIDES.items(), strict=True):
        _shares(axes, [(index.models[row.name], side(row)) for row in rows], side(measured.chance))
        log_axis(axes, "x", min(ends) / 2, max(ends) * 2, most=4)
        axes.set_yticks(range(len(rows)), [called(index, row.name) for row in rows])
        axes.set_title(words)
    grid[0][1].set_xlabel(f"share of ‖ΔW‖² in the base’s top {measured.k} directions (log scale, one range)")
    gathered(figure)
    chance = formats.significant(measured.chance.left, 2)
    return (
        figure,
        "Where the base’s weights point",
        (
            f"Share of each update’s squared norm within the top {measured.k} singular directions of the base’s "
            f"own weights; dashed: a random update’s ({chance} on the output side)."
        ),
    )


def _shares(axes: Axes, shares: Sequence[tuple[Model, float | None]], chance: float | None) -> None:
    for i, (model, value) in enumerate(shares):
        if value:
            axes.plot([value], [i], **{**look(model), "linestyle": "none"})
    if chance:
        axes.axvline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance")
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


SECTION = Section(
    key="spectra",
    title="The updates beside the base’s weights",
    step="spectra",
    tables=from_results(spectra_table),
    figures={"spectra": spectra},
    csv=csv_of(
        lambda results: results.spectra,
        {
            "spectra": lambda spectra: spectra.adapters,
            "spectra_layers": lambda spectra: spectra.layers,
            "spectra_projections": lambda spectra: spectra.projections,
            "spectra_modules": lambda spectra: spectra.modules,
        },
    ),
)
