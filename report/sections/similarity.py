"""Likeness of features: CKA of hidden states and of the adapted projections' outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from report import formats
from report.model_index import BASE, ModelIndex, other
from report.plotting import (
    CHANCE,
    LAYER,
    PAGE,
    Canvas,
    Made,
    bring_out,
    called,
    every,
    gathered,
    layer_axis,
    look,
    numbers,
    short,
)
from report.section import Section, csv_of, from_results
from report.tables import Cell, Column, Table, number, records, text
from results import Results
from results.function import HiddenCka, ModuleCka
from results.places import Between

if TYPE_CHECKING:
    from matplotlib.axes import Axes

R = TypeVar("R", bound=Between)
_ORDER = "qkvo"  # projections in the order that attention uses them
_ROUNDING = 1e-6  # of a CKA of float32 features


@dataclass(frozen=True)
class _Towards(Generic[R]):
    """What ``row`` is of: the model that others are held against, and the other one."""

    target: str
    other: str
    row: R


def _towards(rows: Iterable[R], index: ModelIndex) -> list[_Towards[R]]:
    """Rows of pairs with the reference in them, then of those with the base and without the reference."""
    first, second = [], []
    for row in rows:
        if index.reference and (name := other(row, index.reference)):
            first.append(_Towards(index.reference, name, row))
        elif name := other(row, BASE):
            second.append(_Towards(BASE, name, row))
    return [*first, *second]


def _pair_column(index: ModelIndex) -> tuple[Column, Callable[[_Towards[R]], Cell]]:
    return Column("Pair", kind="text"), lambda pair: text(f"{index.label(pair.target)} · {index.label(pair.other)}")


def _cka_cell(row: HiddenCka) -> Cell:
    known = row.low is not None and row.high is not None
    interval = f"{formats.cosine(row.low)} to {formats.cosine(row.high)}" if known else ""
    return number(formats.cosine(row.cka), "undefined", interval)


def hidden_table(results: Results, index: ModelIndex) -> Table | None:
    """CKA of the deepest layer's hidden states, against the reference and against the base."""
    rows = results.similarity.hidden if results.similarity else []
    last = max((row.layer for row in rows), default=None)
    return records(
        "cka",
        f"Likeness of hidden states after layer {last}",
        _towards((row for row in rows if row.layer == last), index),
        [
            _pair_column(index),
            (Column("CKA", "95% interval"), lambda pair: _cka_cell(pair.row)),
            (Column("Shuffled control"), lambda pair: number(formats.cosine(pair.row.shuffled))),
        ],
        "The last layer of the figure above, counted from 0 and after the final norm, in numbers. Intervals by "
        "delete-a-group jackknife over prompts; a bootstrap would count its repeats as agreement.",
        kind=lambda pair: "base" if BASE in (pair.target, pair.other) else "",
        folded=True,
    )


def projections_table(results: Results, index: ModelIndex) -> Table | None:
    """CKA of the adapted projections' outputs, mean over layers, one column a kind of projection."""
    rows = results.similarity.modules if results.similarity else []
    grouped: dict[tuple[str, str], dict[str, list[float]]] = {}
    for pair in _towards(rows, index):
        if pair.row.cka is not None:
            kinds = grouped.setdefault((pair.target, pair.other), {})
            kinds.setdefault(_kind(pair.row), []).append(pair.row.cka)

    def cell(kind: str) -> Callable[[tuple[str, str]], Cell]:
        def make(pair: tuple[str, str]) -> Cell:
            values = grouped[pair].get(kind) or []
            low = formats.cosine(min(values)) if len(values) > 1 else ""
            return number(formats.cosine(sum(values) / len(values) if values else None), detail=low and f"min {low}")

        return make

    return records(
        "projections",
        "Likeness at the adapted projections",
        grouped,
        [
            (Column("Pair", kind="text"), lambda pair: text(" · ".join(map(index.label, pair)))),
            *(
                (Column(kind, "mean over layers"), cell(kind))
                for kind in sorted({_kind(row) for row in rows}, key=_projection_order)
            ),
        ],
        "Linear CKA of each adapted projection’s outputs; below the mean, the layer where it is lowest. "
        "Likeness of features on these prompts, not of behaviour on others.",
        folded=True,
    )


def _kind(row: ModuleCka) -> str:
    """What a module projects, with its stack of layers where a model has several."""
    return f"{row.stack} {row.projection}" if row.stack else row.projection


def _projection_order(kind: str) -> tuple[str, int, str]:
    known = ("q_proj", "k_proj", "v_proj", "o_proj")
    stack, _, name = kind.rpartition(" ")
    return (stack, known.index(name) if name in known else len(known), name)


def cka(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """CKA of hidden states by layer, to the reference and to the base, with the shuffled control."""
    similarity = results.similarity
    rows = [row for row in similarity.hidden if row.cka is not None] if similarity else []
    panels = {target: [row for row in rows if other(row, target)] for target in (index.reference, BASE)}
    panels = {target: group for target, group in panels.items() if group}
    if similarity is None or not panels:
        return None
    figure, grid = canvas.grid(PAGE, 3.4, 1, len(panels), sharey=True)
    for axes, (target, of_target) in zip(grid[0], panels.items(), strict=True):
        for name in index.order(other(row, target) for row in of_target):
            courses = sorted((row for row in of_target if other(row, target) == name), key=lambda row: row.layer)
            _cka_line(axes, index, name, courses)
        depth = sorted({row.layer for row in of_target})
        shuffled = [[r.shuffled for r in of_target if r.layer == at and r.shuffled is not None] for at in depth]
        control = [float(np.mean(values)) if values else None for values in shuffled]
        axes.plot(depth, numbers(control), color=CHANCE, linestyle="--", linewidth=1, label="shuffled control")
        layer_axis(axes, depth)
        axes.set_title(f"to {called(index, target)}")
    highest = _towards_one(grid[0], [row for found in panels.values() for row in found])
    grid[0][0].set_ylabel("linear CKA (log scale of 1 − CKA)")
    for axes in grid[0]:
        bring_out(axes, index)
    gathered(figure, [called(index, name) for name in index.models])
    return (
        figure,
        "Likeness of hidden states by layer",
        (
            f"Linear CKA ({similarity.estimator}; {similarity.position} token; "
            f"{formats.count(similarity.prompts)} prompts) against depth; bars: 95% jackknife "
            "interval over prompts. The shuffled control pairs each prompt with another’s features: it "
            f"should lie at 0. The axis is stretched towards 1, where values differ least; what is above {highest:.7g} "
            "stands at its upper edge. A wide open line has another one on it. Layers count from 0, as in the modules’ "
            "names: a state is that after its layer, −1 the embeddings. High CKA means like features on these prompts, "
            "not like answers."
        ),
    )


def _towards_one(panels: Sequence[Axes], rows: list[HiddenCka]) -> float:
    """One axis for all panels, logarithmic in 1 - CKA, from below the control to past the highest value short of 1.

    Returns that upper end: what is nearer to 1 is drawn there.
    """
    short_of = [1 - value for row in rows for value in (row.cka, row.high) if value is not None]
    edge = max(_ROUNDING, min((gap for gap in short_of if gap > _ROUNDING), default=0.1)) / 2
    lowest = min(0.0, *(v for row in rows for v in (row.cka, row.low, row.shuffled) if v is not None))

    def forward(values: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(1 - np.asarray(values, dtype=float), edge))

    def inverse(heights: np.ndarray) -> np.ndarray:
        return 1 - 10 ** -np.asarray(heights, dtype=float)

    gaps = [factor / 10**power for power in range(7) for factor in (1, 0.5, 0.2)]
    ticks = [gap for gap in gaps if edge <= gap]
    kept = [gap for gap in ticks if len(ticks) <= 9 or math.log10(gap) % 1 == 0]
    for axes in panels:
        axes.set_yscale("function", functions=(forward, inverse))
        axes.set_ylim(lowest - 0.2, 1 - edge)
        axes.set_yticks([1 - gap for gap in kept], [f"{1 - gap:.7g}" for gap in kept])
        axes.set_yticks([], minor=True)
    return 1 - edge


def _cka_line(axes: Axes, index: ModelIndex, name: str, rows: list[HiddenCka]) -> None:
    model = index.models[name]
    depth, values = [row.layer for row in rows], numbers([row.cka for row in rows])
    low, high = numbers([row.low for row in rows]), numbers([row.high for row in rows])
    known = np.isfinite(low) & np.isfinite(high)
    if known.any():
        at = np.array(depth)[known]
        axes.vlines(at, low[known], high[known], color=model.colour, linewidth=0.8, alpha=0.6)
    style = {**look(model), "clip_on": False}  # a marker at the upper edge is seen whole
    axes.plot(depth, values, **style, markevery=every(len(rows)), label=called(index, name))


def _heat(axes: Axes, values: np.ndarray, depth: list[int], low: float) -> None:
    """One projection's cells, models by layers, with their numbers where there is room."""
    axes.imshow(values, cmap="viridis", vmin=low, vmax=1, aspect="auto")
    step = max(1, math.ceil(len(depth) / 6))
    axes.set_xticks(range(0, len(depth), step), [str(at) for at in depth[::step]])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    if step > 1:
        return
    for (i, j), value in np.ndenumerate(values):
        shown = formats.cosine(float(value), 2) if np.isfinite(value) else formats.MISSING
        colour = "black" if value > 0.4 + 0.6 * low else "white"
        axes.text(j, i, shown, ha="center", va="center", fontsize=6, color=colour)


def projections(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """CKA of each adapted projection's outputs, to the reference, as a heat map a projection."""
    cka_by_module = {
        (name, (row.stack or "", row.projection), row.layer): row.cka
        for row in (results.similarity.modules if results.similarity else ())
        if (name := other(row, index.reference)) and row.cka is not None and row.layer is not None
    }
    if not cka_by_module:
        return None
    names = index.order(name for name, _, _ in cka_by_module)
    kinds = sorted(
        {kind for _, kind, _ in cka_by_module}, key=lambda kind: (kind[0], _ORDER.find(kind[1][:1]), kind[1])
    )
    depth = sorted({layer for _, _, layer in cka_by_module})
    columns = min(4, len(kinds))
    lines = math.ceil(len(kinds) / columns)
    figure, grid = canvas.grid(PAGE, lines * (0.9 + 0.22 * len(names)), lines, columns, sharey=True)
    low = math.floor(10 * min(0.9, *cka_by_module.values())) / 10
    for axes, kind in zip(grid.flat, kinds, strict=False):
        values = np.array([[cka_by_module.get((name, kind, at), math.nan) for at in depth] for name in names])
        _heat(axes, values, depth, low)
        axes.set_title(short(" ".join(kind).strip()))
        axes.set_yticks(range(len(names)), [called(index, name) for name in names])
    for axes in grid.flat[len(kinds) :]:
        axes.set_visible(False)
    figure.supxlabel(LAYER, fontsize=8)
    bar = figure.colorbar(grid.flat[0].images[0], ax=list(grid.flat), shrink=0.9, pad=0.01)
    bar.set_label(f"CKA to {called(index, index.reference)}")
    return (
        figure,
        "Likeness at each adapted projection",
        (
            "Linear CKA of the outputs of every adapted projection, each model against "
            f"{index.label(index.reference)}, by layer. It locates where features part; it does not say "
            "which of two unlike features is the better one."
        ),
    )


SECTION = Section(
    key="similarity",
    title="Likeness of features",
    step="similarity",
    tables=from_results(hidden_table, projections_table),
    figures={"cka": cka, "projections": projections},
    csv=csv_of(
        lambda results: results.similarity,
        {
            "cka_layers": lambda similarity: similarity.hidden,
            "cka_projections": lambda similarity: similarity.modules,
        },
    ),
)
