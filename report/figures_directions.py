"""Drawings of the updates' course, of what they do to real inputs, and of where the base's weights point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from report import formats
from report.figures_weights import CHANCE, every
from report.model_index import Model, ModelIndex, other, pair
from report.plotting import FLOOR, PAGE, Canvas, Made, bring_out, called, gathered, log_axis, look, shared_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def parting(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Cosine to the reference at the same step, and of each update to its own end, over the steps of training."""
    found = (results.get("geometry") or {}).get("along") or {}
    reference = index.reference
    towards: dict[str, list[tuple[int, float]]] = {}
    for row in found.get("pairs") or []:
        name = other(row, reference)
        if name is not None and row.get("cosine") is not None and not _anothers_floor(index, name):
            towards.setdefault(name, []).append((row["step"], row["cosine"]))
    onward: dict[str, list[tuple[int, float]]] = {}
    for row in found.get("adapters") or []:
        if row.get("to_end") is not None:
            onward.setdefault(row["name"], []).append((row["step"], row["to_end"]))
    if not towards or max(map(len, towards.values())) < 2:
        return None
    figure, ((left, right),) = canvas.grid(PAGE, 3.2, 1, 2)
    for axes, series, words in (
        (left, towards, f"cosine to {called(index, reference)}, same step"),
        (right, onward, "cosine to its own end"),
    ):
        _courses(axes, series, index)
        axes.set_ylabel(words)
    shared_range((left, right), "y")
    for axes in (left, right):
        bring_out(axes, index)
    chance = (((results.get("geometry") or {}).get("chance") or {}).get("shared_a") or {}).get("cosine")
    if chance is not None:
        left.axhline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance, same initial A")
    gathered(figure, [called(index, name) for name in index.models])
    return (
        figure,
        "When do two methods part?",
        (
            f"Left: cosine of each update to {index.label(reference)}’s at the same optimiser step; grey: the floors, "
            f"{index.label(reference)} itself with another order of rows or another initial A. A method that leaves "
            "the floor of another order has parted. Right: how soon each update points where it ends."
        ),
    )


def _anothers_floor(index: ModelIndex, name: str) -> bool:
    """Whether it repeats another method than the reference: its cosine to the reference is no floor."""
    model, reference = index.models[name], index.models.get(index.reference or "")
    return model.role in ("order", "init") and reference is not None and model.method != reference.method


def _courses(axes: Axes, series: dict[str, list[tuple[int, float]]], index: ModelIndex) -> None:
    for name in index.order(list(series)):
        model, course = index.models[name], sorted(series[name])
        axes.plot(*zip(*course, strict=True), **look(model), markevery=every(len(course)), label=called(index, name))
    axes.set_xlabel("optimiser step")
    axes.locator_params(axis="x", integer=True)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 1.02))


def functions(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Activation-weighted against plain cosine to the reference."""
    found = results.get("activations") or {}
    points = []
    for row in found.get("pairs") or []:
        name = other(row, index.reference)
        plain = row["plain"] if "plain" in row else pair(results, name or "", index.reference or "").get("cosine")
        if name is not None and plain is not None and row.get("cosine") is not None:
            points.append((name, plain, row["cosine"]))
    if not points:
        return None
    figure, ((axes,),) = canvas.grid(PAGE, 3.4)
    chance = found.get("chance")
    if chance is not None:
        axes.axhline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance, same initial A")
    low = min(0.0, *(min(x, y) for _, x, y in points)) - 0.04
    axes.plot([low, 1], [low, 1], color=FLOOR, linewidth=0.8, linestyle=":", label="equal")
    for name, x, y in sorted(points, key=lambda point: list(index.models).index(point[0])):
        model = index.models[name]
        axes.plot([x], [y], **{**look(model), "linestyle": "none"}, markersize=7, label=called(index, name))
    axes.set_xlim(low, 1.04)
    axes.set_ylim(low, 1.04)
    axes.set_xlabel(f"cosine of the entries to {called(index, index.reference)}")
    axes.set_ylabel("activation-weighted cosine")
    bring_out(axes, index)
    gathered(figure, ["equal", "chance, same initial A"], beside=True)
    return (
        figure,
        "Alike in entries, alike in effect?",
        (
            "Cosine weighed by the inputs that the modules really get, against the plain one. Above the diagonal two "
            "updates are more alike in what they do than in their entries, as another initial A of one method is. A "
            "wide open marker has another one on it."
        ),
    )


def spectra(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Shares of the updates in the base weights' top singular directions, against chance."""
    found = results.get("spectra") or {}
    by_name = {row.get("name"): row for row in found.get("adapters") or []}
    names = [name for name in index.order(by_name) if by_name[name].get("both")]
    if not names:
        return None
    sides = {"left": "output side", "right": "input side", "both": "both sides"}
    chance = found.get("chance") or {}
    figure, grid = canvas.grid(PAGE, 1.5 + 0.2 * len(names), 1, len(sides), sharey=True)
    held = [by_name[name].get(key) for name in names for key in sides] + [chance.get(key) for key in sides]
    ends = [value for value in held if value]
    for axes, (key, words) in zip(grid[0], sides.items(), strict=True):
        values = [by_name[name].get(key) for name in names]
        _shares(axes, [index.models[name] for name in names], values, chance.get(key))
        log_axis(axes, "x", min(ends) / 2, max(ends) * 2, most=4)
        axes.set_yticks(range(len(names)), [called(index, name) for name in names])
        axes.set_title(words)
    top = f"top {found['k']}" if found.get("k") else "top"
    grid[0][1].set_xlabel(f"share of ‖ΔW‖² in the base’s {top} directions (log scale, one range)")
    gathered(figure)
    return (
        figure,
        "Where the base’s weights point",
        (
            f"Share of each update’s squared norm within the {top} singular directions of the base’s "
            f"own weights; dashed: a random update’s ({formats.significant(chance.get('left'), 2)} on the output side)."
        ),
    )


def _shares(axes: Axes, models: list[Model], values: list[float | None], chance: float | None) -> None:
    for i, (model, value) in enumerate(zip(models, values, strict=True)):
        if value:
            axes.plot([value], [i], **{**look(model), "linestyle": "none"})
    if chance:
        axes.axvline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance")
    axes.set_ylim(len(models) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
