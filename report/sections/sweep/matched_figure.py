"""Every comparison at equal settings in one drawing: direction, size and accuracy beside the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from report import formats, matched
from report.model_index import ModelIndex, distinct
from report.plotting import CHANCE, FLOOR, PAGE, Canvas, Made, called, gathered, log_axis, look, short
from results import Results
from results.matched import AccuracyDifference, MatchedRow, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEY = "matched"
LEVEL = 0.05
_MOST_ROWS = 60
_MOST_TASKS = 2  # that have room beside the two other panels
_ROW, _GAP = 0.125, 0.6  # inches a comparison, and of that a gap between two kinds of comparison


class _Placed(NamedTuple):
    """A row and how far down it is drawn."""

    at: float
    row: MatchedRow


def figure(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """A line a comparison, those of one kind together; a panel each for cosine, norm ratio and accuracies."""
    rows = matched.rows(results)
    placed, ticks = _places(_first(rows, index))
    if not placed:
        return None
    reference, looks = (
        called(index, index.reference or placed[0].row.to),
        _looks((row for _, row in placed), results, index),
    )
    tasks = [task for task in results.tasks if any(_of(row, task.task) for _, row in placed)][:_MOST_TASKS]
    titles = {task.task: task.title for task in tasks}
    names = distinct(list(titles), lambda name: short(titles[name], 28))
    deep = placed[-1].at + 1
    drawing, grid = canvas.grid(PAGE, 1.0 + _ROW * deep, 1, 2 + len(tasks), sharey=True)
    panels = list(grid.flat)
    for axes in panels:
        for _, above, below in ticks[::2]:
            axes.axhspan(above, below, color="#f4f4f4", linewidth=0, zorder=0)
    _spans(panels[0], placed, looks, index, [row.cosine for _, row in placed])
    for at, row in placed:
        if row.floor is not None:
            panels[0].plot([row.floor.mean], [at], linestyle="none", marker="|", markersize=6, color=FLOOR)
    chance = results.geometry.chance.shared_a.cosine if results.geometry else None
    if chance is not None:
        panels[0].axvspan(-2 * chance, 2 * chance, color=CHANCE, alpha=0.25, linewidth=0)
    panels[0].axvline(0, color=FLOOR, linewidth=0.6)
    panels[0].set_xlabel(f"cosine to {reference}")
    _spans(panels[1], placed, looks, index, [row.norm_ratio for _, row in placed])
    spans = [row.norm_ratio for _, row in placed if row.norm_ratio]
    ratios = [end for span in spans for end in (span.low, span.high) if end > 0]
    if ratios:
        log_axis(panels[1], "x", min(*ratios, 1) / 1.3, max(*ratios, 1) * 1.3, most=4)
    panels[1].axvline(1, color=FLOOR, linewidth=0.6)
    panels[1].set_xlabel(f"norm over {reference}’s (log)")
    for axes, task in zip(panels[2:], tasks, strict=True):
        for at, row in placed:
            if found := _of(row, task.task):
                _difference(axes, at, found, looks[row.method])
        axes.axvline(0, color=FLOOR, linewidth=0.6)
        axes.set_xlabel(f"points to {reference}\n{names[task.task]}")
    panels[0].set_yticks([(above + below) / 2 for _, above, below in ticks], [label for label, _, _ in ticks])
    panels[0].set_ylim(deep - 0.5, -0.5)
    for axes in panels:
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    gathered(drawing, [called(index, name) for name in index.models])
    title = f"Each kind of comparison with {index.label(index.reference)}: direction, size and accuracy"
    left = f" Of {len(rows)} rows {len(placed)} are drawn." if len(placed) < len(rows) else ""
    return drawing, title, _caption(index, evaluated=bool(tasks)) + left


def _first(rows: Sequence[MatchedRow], index: ModelIndex) -> Sequence[MatchedRow]:
    """At most ``_MOST_ROWS``: of more, those at the reference's own rate or as published before others."""
    return sorted(rows, key=lambda row: row.matched != "as published" and row.learning_rate != index.rate)[:_MOST_ROWS]


def _places(rows: Sequence[MatchedRow]) -> tuple[list[_Placed], list[tuple[str, float, float]]]:
    """Where each row is drawn, and of each kind of comparison its words and upper and lower end."""
    placed: list[_Placed] = []
    ticks: list[tuple[str, float, float]] = []
    at = 0.0
    for label, kind in groupby(sorted(rows, key=_turn), _label):
        first = at
        for row in kind:
            placed.append(_Placed(at, row))
            at += 1
        ticks.append((label, first - 0.5 - _GAP / 2, at - 0.5 + _GAP / 2))
        at += _GAP
    return placed, ticks


def _turn(row: MatchedRow) -> tuple[int, float]:
    kinds = ("as published", "learning rate", "steps", "rows", "tokens", "problems", "norm", "best rate")
    return kinds.index(row.matched), 0.0 if row.matched in ("as published", "best rate") else row.learning_rate


def _label(row: MatchedRow) -> str:
    """What is equal, and at which learning rate."""
    if row.matched == "as published":
        return "own rates"
    if row.matched == "best rate":
        return "best rates"
    if row.matched == "learning rate":
        return f"rate {formats.rate(row.learning_rate)}"
    return f"{row.matched}, {'from' if row.matched == 'norm' else 'at'} {formats.rate(row.learning_rate)}"


def _looks(rows: Iterable[MatchedRow], results: Results, index: ModelIndex) -> dict[str, dict]:
    """How each method's points look; a variant that the index has no room for is drawn as its objective, open."""
    looks: dict[str, dict] = {}
    for row in rows:
        training = results.training(row.trainings[0])
        names = (row.method, *row.trainings, training.objective if training else row.method)
        model = next((index.models[name] for name in names if name in index.models), next(iter(index.models.values())))
        own = model.name in names[:-1]
        face = {} if own else {"markerfacecolor": "white"}
        looks.setdefault(row.method, look(model) | {"linestyle": "none", "markersize": 4} | face)
    return looks


def _spans(
    axes: Axes, placed: Sequence[_Placed], looks: Mapping[str, dict], index: ModelIndex, spans: Sequence[Span | None]
) -> None:
    """The mean over pairs of trainings as a point, from the lowest to the highest as a line."""
    for (at, row), span in zip(placed, spans, strict=True):
        if span is not None:
            style = looks[row.method]
            axes.plot([span.low, span.high], [at, at], color=style["color"], linewidth=1.1)
            axes.plot([span.mean], [at], **style, label=called(index, row.method))


def _difference(axes: Axes, at: float, found: AccuracyDifference, style: Mapping[str, Any]) -> None:
    """The difference in points with its interval: a filled point where it is told from zero, else an open one."""
    told = found.p_holm is not None and found.p_holm < LEVEL
    if found.low is not None and found.high is not None:
        axes.plot([100 * found.low, 100 * found.high], [at, at], color=style["color"], linewidth=1.1)
    axes.plot([100 * found.difference], [at], **{**style, "markerfacecolor": style["color"] if told else "white"})


def _of(row: MatchedRow, task: str) -> AccuracyDifference | None:
    return next((found for found in row.accuracy if found.task == task), None)


def _caption(index: ModelIndex, evaluated: bool) -> str:
    reference = index.label(index.reference)
    words = (
        "A line is a row of the two tables below, which name the trainings. Own rates: as published. Rate: both at "
        "this one. Steps, rows, tokens, problems: as many of them, at this rate. Norm: trained at this rate, then "
        f"scaled to {reference}’s norm. Cosine and norm: mean over the pairs of trainings, the line from lowest to "
        "highest; grey ticks: two trainings of either in different orders of rows; brown band: random updates."
    )
    verdict = (
        " Accuracy: mean of the method’s trainings less the reference’s, with its 95% interval over trainings and "
        "problems; filled where it is told from zero (p below 0.05, by Holm’s method over the rows). No line: one "
        "training of each, or nothing varies."
    )
    return words + verdict * evaluated
