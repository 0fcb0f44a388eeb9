"""Likeness of features: CKA of hidden states and of the adapted projections' outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from report import formats
from report.model_index import BASE, ModelIndex  # typed soon
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
from report.section import Section, from_results, rows_at
from report.tables import Cell, Column, Table, number, records, text
from report.typed_soon import other  # typed soon

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ORDER = "qkvo"  # projections in the order that attention uses them
_ROUNDING = 1e-6  # of a CKA of float32 features


def _towards(rows: list[dict], index: ModelIndex) -> Iterator[tuple[str, str, dict]]:
    """Rows of pairs with the reference or the base in them: (that one, the other one, row)."""
    for target in (index.reference, BASE):
        for row in rows:
            found = other(row, target)
            # the pair of the two targets belongs to the first of them alone
            if target is not None and found is not None and not (target == BASE and found == index.reference):
                yield target, found, row


def _pair_column(index: ModelIndex) -> tuple[Column, Callable[[dict], Cell]]:
    return Column("Pair", kind="text"), lambda row: text(f"{index.label(row['a'])} · {index.label(row['b'])}")


def _cka_cell(row: dict) -> Cell:
    low, high = row.get("low"), row.get("high")
    known = low is not None and high is not None
    detail = f"{formats.cosine(low)} to {formats.cosine(high)}" if known else ""
    return number(formats.cosine(row.get("cka")), "undefined", detail)


def hidden_table(results: dict, index: ModelIndex) -> Table | None:
    """CKA of the deepest layer's hidden states, against the reference and against the base."""
    rows = [row for row in (results.get("similarity") or {}).get("hidden") or [] if row.get("layer") is not None]
    last = max((row["layer"] for row in rows), default=None)
    deepest = [row for row in rows if row["layer"] == last]
    return records(
        "cka",
        f"Likeness of hidden states after layer {last}",
        [{**row, "a": a, "b": b} for a, b, row in _towards(deepest, index)],
        [
            _pair_column(index),
            (Column("CKA", "95% interval"), _cka_cell),
            (Column("Shuffled control"), lambda row: number(formats.cosine(row.get("shuffled")))),
        ],
        "The last layer of the figure above, counted from 0 and after the final norm, in numbers. Intervals by "
        "delete-a-group jackknife over prompts; a bootstrap would count its repeats as agreement.",
        kind=lambda row: "base" if BASE in (row["a"], row["b"]) else "",
        folded=True,
    )


def projections_table(results: dict, index: ModelIndex) -> Table | None:
    """CKA of the adapted projections' outputs, mean over layers, one column a kind of projection."""
    rows = (results.get("similarity") or {}).get("modules") or []
    kinds = sorted({_kind(row) for row in rows}, key=_projection_order)
    grouped: dict[tuple[str, str], dict[str, list[float]]] = {}
    for a, b, row in _towards(rows, index):
        if row.get("cka") is not None:
            grouped.setdefault((a, b), {}).setdefault(_kind(row), []).append(row["cka"])

    def cell(kind: str) -> Callable[[dict], Cell]:
        def make(row: dict) -> Cell:
            values = row["values"].get(kind) or []
            low = formats.cosine(min(values)) if len(values) > 1 else ""
            return number(formats.cosine(sum(values) / len(values) if values else None), detail=low and f"min {low}")

        return make

    return records(
        "projections",
        "Likeness at the adapted projections",
        [{"a": a, "b": b, "values": values} for (a, b), values in grouped.items()],
        [
            _pair_column(index),
            *((Column(kind, "mean over layers"), cell(kind)) for kind in kinds),
        ],
        "Linear CKA of each adapted projection’s outputs; below the mean, the layer where it is lowest. "
        "Likeness of features on these prompts, not of behaviour on others.",
        folded=True,
    )


def _kind(row: dict) -> str:
    """What a module projects, with its stack of layers where a model has several."""
    return " ".join(str(row[key]) for key in ("stack", "projection") if row.get(key))


def _projection_order(kind: str) -> tuple[str, int, str]:
    known = ("q_proj", "k_proj", "v_proj", "o_proj")
    stack, _, name = kind.rpartition(" ")
    return (stack, known.index(name) if name in known else len(known), name)


def cka(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """CKA of hidden states by layer, to the reference and to the base, with the shuffled control."""
    rows = [row for row in (results.get("similarity") or {}).get("hidden") or [] if row.get("cka") is not None]
    targets = [name for name in (index.reference, BASE) if any(other(row, name) for row in rows)]
    if not targets:
        return None
    figure, grid = canvas.grid(PAGE, 3.4, 1, len(targets), sharey=True)
    drawn = []
    for axes, target in zip(grid[0], targets, strict=True):
        found = [row for row in rows if other(row, target) is not None and row.get("layer") is not None]
        drawn += found
        names = index.order([other(row, target) or "" for row in found])
        for name in names:
            _cka_line(axes, index, name, sorted((row for row in found if other(row, target) == name), key=_layer))
        depth = sorted({row["layer"] for row in found})
        shuffled = [
            [row["shuffled"] for row in found if row["layer"] == at and row.get("shuffled") is not None] for at in depth
        ]
        control = [float(np.mean(values)) if values else None for values in shuffled]
        axes.plot(depth, numbers(control), color=CHANCE, linestyle="--", linewidth=1, label="shuffled control")
        layer_axis(axes, depth)
        axes.set_title(f"to {called(index, target)}")
    highest = _towards_one(grid[0], drawn)
    grid[0][0].set_ylabel("linear CKA (log scale of 1 − CKA)")
    for axes in grid[0]:
        bring_out(axes, index)
    gathered(figure, [called(index, name) for name in index.models])
    similarity = results.get("similarity") or {}
    return (
        figure,
        "Likeness of hidden states by layer",
        (
            f"Linear CKA ({similarity.get('estimator') or 'estimator not recorded'}; "
            f"{similarity.get('position') or 'position not recorded'} token; "
            f"{formats.count(similarity.get('prompts'))} prompts) against depth; bars: 95% jackknife "
            "interval over prompts. The shuffled control pairs each prompt with another’s features: it "
            f"should lie at 0. The axis is stretched towards 1, where values differ least; what is above {highest:.7g} "
            "stands at its upper edge. A wide open line has another one on it. Layers count from 0, as in the modules’ "
            "names: a state is that after its layer, −1 the embeddings. High CKA means like features on these prompts, "
            "not like answers."
        ),
    )


def _towards_one(panels: Sequence[Axes], rows: list[dict]) -> float:
    """One axis for all panels, logarithmic in 1 - CKA, from below the control to past the highest value short of 1.

    Returns that upper end: what is nearer to 1 is drawn there.
    """
    short_of = [1 - row[key] for row in rows for key in ("cka", "high") if row.get(key) is not None]
    edge = max(_ROUNDING, min((gap for gap in short_of if gap > _ROUNDING), default=0.1)) / 2
    lowest = min(0.0, *(row[key] for row in rows for key in ("cka", "low", "shuffled") if row.get(key) is not None))

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


def _layer(row: dict) -> int:
    return row["layer"]


def _cka_line(axes: Axes, index: ModelIndex, name: str, rows: list[dict]) -> None:
    model = index.models[name]
    depth, values = [row["layer"] for row in rows], numbers([row["cka"] for row in rows])
    low, high = numbers([row.get("low") for row in rows]), numbers([row.get("high") for row in rows])
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


def _stack_kind(row: dict) -> tuple[str, str]:
    """The stack of layers that a module belongs to, where there are several, and what it projects."""
    return row.get("stack") or "", str(row.get("projection"))


def projections(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """CKA of each adapted projection's outputs, to the reference, as a heat map a projection."""
    rows = [
        row
        for row in (results.get("similarity") or {}).get("modules") or []
        if other(row, index.reference) is not None and row.get("cka") is not None and row.get("layer") is not None
    ]
    if not rows:
        return None
    names = index.order([other(row, index.reference) or "" for row in rows])
    kinds = sorted({_stack_kind(row) for row in rows}, key=lambda kind: (kind[0], _ORDER.find(kind[1][:1]), kind[1]))
    depth = sorted({row["layer"] for row in rows})
    found = {(other(row, index.reference), _stack_kind(row), row["layer"]): row["cka"] for row in rows}
    columns = min(4, len(kinds))
    lines = math.ceil(len(kinds) / columns)
    figure, grid = canvas.grid(PAGE, lines * (0.9 + 0.22 * len(names)), lines, columns, sharey=True)
    low = math.floor(10 * min(0.9, *(row["cka"] for row in rows))) / 10
    for axes, kind in zip(grid.flat, kinds, strict=False):
        values = np.array([[found.get((name, kind, at), math.nan) for at in depth] for name in names])
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
    csv={"cka_layers": rows_at("similarity", "hidden"), "cka_projections": rows_at("similarity", "modules")},
)
