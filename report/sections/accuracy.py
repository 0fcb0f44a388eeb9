"""Accuracy of every model on every task: intervals, paired tests, agreement, strata; the base included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from report import (
    formats,
    typed_soon,  # typed soon
)
from report.model_index import BASE, ModelIndex
from report.plotting import PAGE, Canvas, Made, called, look, shared_range, short
from report.section import Section, Source, rows_at
from report.tables import Cell, Column, Line, Table, failed, number, records, text  # typed soon
from report.text_pages import ANSWERS
from report.typed_soon import (  # typed soon
    SIGN_FLIP,  # typed soon
    named,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SMALLEST = ("single", "holm")


def _against_base(task: dict, name: str | None) -> dict:
    for row in task.get("pairs") or []:
        if {row.get("a"), row.get("b")} == {name, BASE}:
            return row
    return {}


def _points(value: float | None) -> str:
    """A difference of two accuracies in points, with its sign."""
    return formats.MISSING if value is None else ("+" if value > 0 else "") + formats.fixed(100 * value, 1)


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_points(low)} to {_points(high)}"


def _turned(pair: dict, first: str | None) -> dict:
    """The pair's difference and interval as the other model's accuracy less that of ``first``."""
    low, high, difference = pair.get("low"), pair.get("high"), pair.get("difference")
    if pair.get("a") == first:
        return {"difference": difference, "low": low, "high": high}
    low, high, difference = (None if value is None else -value for value in (high, low, difference))
    return {"difference": difference, "low": low, "high": high}


def _difference(task: dict, row: dict) -> Cell:
    base = [model for model in task.get("models") or [] if model.get("name") == BASE]
    if row.get("name") == BASE:
        return number(formats.MISSING, "the base itself")
    if not base or base[0].get("accuracy") is None or row.get("accuracy") is None:
        return number(formats.MISSING, "base not evaluated")
    turned = _turned(_against_base(task, row.get("name")), BASE)
    return number(_points(row["accuracy"] - base[0]["accuracy"]), detail=_range(turned["low"], turned["high"]))


def _samples(task: dict) -> int:
    return task.get("samples") or 1


def _title(task: dict) -> str:
    return task.get("title") or task.get("task") or "Task"


def _several(task: dict, rows: list[dict]) -> list[tuple[Column, Callable[[dict], Cell]]]:
    """The columns that several samples a problem add: pass@k and maj@k."""
    samples = _samples(task)
    if samples == 1:
        return []
    ks = list(dict.fromkeys(k for row in rows for k in row.get("pass_at") or {} if k != "1"))

    def passed(k: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.percent((row.get("pass_at") or {}).get(k)), "not evaluated")

    majority = (Column(f"maj@{samples}"), lambda row: number(formats.percent(row.get("maj")), "not evaluated"))
    return [*((Column(f"pass@{k}"), passed(k)) for k in ks), majority]


def _asked(task: dict) -> str:
    """How the answers were drawn, in words."""
    sampling = task.get("sampling") or {}
    samples, temperature, top_p = _samples(task), sampling.get("temperature"), sampling.get("top_p")
    if not temperature:
        drawn = "One greedy answer a problem"
    else:
        drawn = f"{'One sample' if samples == 1 else f'{samples} samples'} a problem at temperature {temperature:g}"
        drawn += f", top-p {top_p:g}" if top_p is not None and top_p < 1 else ""
    return f"{drawn}, {formats.count(task.get('n'))} problems."


def _accuracy_caption(task: dict) -> str:
    if _samples(task) == 1:
        how = (
            "Wilson intervals. Exact McNemar test against the base, Holm-adjusted over all pairs of the task; interval "
            "of the difference: Bonett and Price."
        )
    else:
        how = (
            "Accuracy is the mean share of right samples (pass@1); pass@k the chance that one of k samples is right, "
            "unbiased; maj@k the share of problems whose most frequent answer is right, ties by a fair draw. "
            "Intervals: Clopper and Pearson's of the effective number of samples; of differences, the bootstrap over "
            "problems. Exact sign-flip test over problems against the base, Holm-adjusted "
            "over all pairs of the task; where few problems differ, p is to be read and not the interval."
        )
    smallest = task.get("smallest_difference") or {}
    shown = ""
    if smallest:
        single, holm = (formats.fixed(100 * v, 1) if v is not None else None for v in map(smallest.get, _SMALLEST))
        if single is None:
            shown = " So few problems can show no difference at all."
        else:
            first = "none" if holm is None else f"{holm} points"
            shown = (
                f" The smallest difference that they could show at p = 0.05, if all that differ went one way: {single} "
                f"points in one comparison, {first} at Holm’s first step; to find one reliably it must be larger."
            )
    return (
        f"{_asked(task)} {how}{shown} The interval is over problems: it does not hold what another training run of the "
        "same method would give."
    )


def accuracy_table(task: dict, index: ModelIndex) -> Table | None:
    """One task: accuracy with its interval, pass@k and maj@k, the difference to the base and its test, lengths."""
    rows = typed_soon.in_order(index, task.get("models") or [])  # typed soon
    samples = _samples(task)
    of = formats.count(task.get("n")) + (f" × {samples}" if samples > 1 else "")

    def length(row: dict) -> Cell:
        known = row.get("median_tokens") is not None and row.get("p95_tokens") is not None
        detail = f"{formats.count(row['median_tokens'])} / {formats.count(row['p95_tokens'])}" if known else ""
        return number(formats.significant(row.get("mean_tokens")), detail=detail)

    columns = [
        named(index),
        (Column("Right", f"of {of}"), lambda row: number(formats.count(row.get("correct")), "not evaluated")),
        (
            Column("Accuracy", "95% interval"),
            lambda row: number(
                formats.percent(row.get("accuracy")),
                "not evaluated",
                formats.interval(row.get("low"), row.get("high")),
            ),
        ),
        *_several(task, rows),
        (Column("To base", "points, 95% interval"), lambda row: _difference(task, row)),
        (
            Column("p to base", "Holm"),
            lambda row: number(
                formats.p_value(_against_base(task, row.get("name")).get("p_holm")),
                "no test against the base",
            ),
        ),
        (Column("Truncated"), lambda row: number(_share(row, "truncated"), "not recorded")),
        (Column("No answer found"), lambda row: number(_share(row, "not_found"), "not recorded")),
        (Column("Length", "tokens: mean, median / 95th percentile"), length),
    ]
    table = records(
        f"accuracy-{task.get('task')}",
        f"Accuracy on {_title(task)}",
        rows,
        columns,
        _accuracy_caption(task),
        kind=lambda row: tint(index, row),
    )
    errors = [model for model in index.models.values() if model.error]
    if table is None or not errors:
        return table
    lines = [failed(model.label, model.error, len(columns)) for model in errors]
    return Table(table.key, table.title, table.columns, (*table.lines, *lines), table.caption)


def _share(row: dict, key: str) -> str:
    value = row.get(key)
    if value is None:
        return formats.MISSING
    # counts and shares are both met; a count of one problem out of many must not read as 100 %
    if isinstance(value, float) and value <= 1:
        return formats.percent(value)
    answers = (row.get("n") or 0) * (row.get("samples") or 1)
    return formats.percent(value / answers) if answers else formats.count(value)


def _matrix(
    task: dict,
    index: ModelIndex,
    key: str,
    title: str,
    cell: Callable[[dict, str, bool], Cell],
    caption: str,
    folded: bool = False,
) -> Table | None:
    """Models against models: ``cell`` of the pair's row, the line's model, and whether it stands above the diagonal."""
    found = {frozenset((row.get("a"), row.get("b"))): row for row in task.get("pairs") or []}
    names = index.order([name for pair in found for name in pair if name is not None])
    if not names:
        return None

    def at(i: int, j: int) -> Cell:
        if i == j:
            return Cell("", "diagonal")
        row = found.get(frozenset((names[i], names[j])))
        return number(formats.MISSING, "pair not tested") if row is None else cell(row, names[i], j > i)

    lines = tuple(
        Line((text(index.label(name)), *(at(i, j) for j in range(len(names)))), tint(index, {"name": name}))
        for i, name in enumerate(names)
    )
    columns = (Column("", kind="text"), *(Column(index.label(name)) for name in names))
    return Table(f"{key}-{task.get('task')}", f"{title} on {_title(task)}", columns, lines, caption, folded)


def mcnemar_table(task: dict, index: ModelIndex) -> Table | None:
    """Above the diagonal Holm-adjusted p; below it on how many problems each of the two models alone does better."""

    def cell(row: dict, name: str, above: bool) -> Cell:
        if above:
            p = row.get("p_holm")
            kind = "strong" if p is not None and p < 0.05 else "number"
            return Cell(formats.p_value(p), kind, note=f"unadjusted p = {formats.p_value(row.get('p'))}")
        what = "more" if row.get("test") == SIGN_FLIP else "only"
        counts = [row.get(f"{what}_a"), row.get(f"{what}_b")]
        first, second = counts if row.get("a") == name else counts[::-1]
        return Cell(f"{formats.count(first)} : {formats.count(second)}", "faint")

    several = any(row.get("test") == SIGN_FLIP for row in task.get("pairs") or [])
    test = "exact p of the sign-flip test over problems" if several else "exact McNemar p"
    below = (
        "problems on which the row’s model has more right samples : the column’s"
        if several
        else "problems that only the row’s model solves : only the column’s"
    )
    caption = (
        f"Above the diagonal: {test}, Holm-adjusted over all {len(task.get('pairs') or [])} pairs, bold below 0.05. "
        f"Below it: {below}. n = {formats.count(task.get('n'))} problems. The test compares two checkpoints, not two "
        "methods: two seeds of one method can differ just as much."
    )
    return _matrix(task, index, "mcnemar", "Paired tests", cell, caption)


def agreement_table(task: dict, index: ModelIndex) -> Table | None:
    """Above the diagonal how often two models have the same verdict; below it the difference of their accuracies."""

    def cell(row: dict, name: str, above: bool) -> Cell:
        if above:
            return number(formats.percent(row.get("agreement")))
        other = row.get("b") if row.get("a") == name else row.get("a")
        turned = _turned(row, other)
        return number(_points(turned["difference"]), detail=_range(turned["low"], turned["high"]))

    same = (
        "share of problems on which two models have the same verdict"
        if _samples(task) == 1
        else "1 less the mean distance of two models’ shares of right samples, which chance between samples lowers"
    )
    caption = (
        f"Above the diagonal: {same}. Below it: the row’s accuracy less the column’s, in points, with its 95% "
        "interval, not adjusted for the number of pairs. Two models of equal accuracy may solve different problems."
    )
    return _matrix(task, index, "agreement", "Agreement", cell, caption, folded=True)


def alone_table(task: dict, index: ModelIndex) -> Table | None:
    """The problems that one model alone solves."""
    rows = typed_soon.in_order(index, task.get("alone") or [])  # typed soon
    solved = "solves" if _samples(task) == 1 else "solves in at least one sample"
    everyone, nobody = (formats.count(task.get(f"solved_by_{who}")) for who in ("all", "none"))

    def which(row: dict) -> Cell:
        ids, count = row.get("ids") or [], row.get("count") or 0
        more = f" and {formats.count(count - len(ids))} more" if count > len(ids) else ""
        return text(", ".join(map(str, ids)) + more, "none")

    return records(
        f"alone-{task.get('task')}",
        f"Solved by one model alone on {_title(task)}",
        rows,
        [
            named(index),
            (Column("Problems"), lambda row: number(formats.count(row.get("count")))),
            (Column("Which", kind="text"), which),
        ],
        f"Problems that this model {solved} and no other here does. Of {formats.count(task.get('n'))} problems all "
        f"models solve {everyone}, none solves {nobody}. A problem solved alone may be solved by luck.",
        kind=lambda row: tint(index, row),
        folded=True,
    )


def strata_table(task: dict, index: ModelIndex) -> Table | None:
    """Accuracy within each stratum, such as easy and hard problems."""
    rows = task.get("strata") or []
    strata = list(dict.fromkeys(row.get("stratum") for row in rows))
    found = {(row.get("name"), row.get("stratum")): row for row in rows}
    sizes = {stratum: next(row.get("n") for row in rows if row.get("stratum") == stratum) for stratum in strata}
    names = index.order([row.get("name") for row in rows])

    def cell(stratum: str) -> Callable[[dict], Cell]:
        return lambda row: number(
            formats.percent((found.get((row["name"], stratum)) or {}).get("accuracy")), "not evaluated"
        )

    return records(
        f"strata-{task.get('task')}",
        f"{'Easy and hard on' if set(strata) == {'easy', 'hard'} else 'Strata of'} {_title(task)}",
        [{"name": name} for name in names],
        [
            named(index),
            *((Column(str(stratum), f"n = {formats.count(sizes[stratum])}"), cell(stratum)) for stratum in strata),
        ],
        "Share right within each stratum. Strata are smaller than the task: a few points between "
        "two models are within chance here.",
        kind=lambda row: tint(index, row),
    )


def accuracy(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Accuracy with its interval, a panel a task, the base as a band."""
    tasks = [
        task
        for task in (results.get("evaluation") or {}).get("tasks") or []
        if any(row.get("accuracy") is not None for row in task.get("models") or [])
    ]
    if not tasks:
        return None
    names = index.order([row.get("name") for task in tasks for row in task.get("models") or []])
    height = 0.7 + 0.21 * len(names)
    figure, grid = canvas.grid(PAGE if len(tasks) > 1 else 4.6, height, 1, len(tasks), sharey=True)
    for axes, task in zip(grid[0], tasks, strict=True):
        rows = {row.get("name"): row for row in task.get("models") or []}
        _base_band(axes, rows.get(BASE) or {})
        for i, name in enumerate(names):
            row = rows.get(name) or {}
            if row.get("accuracy") is None:
                continue
            value = 100 * row["accuracy"]
            low = 100 * (row["low"] if row.get("low") is not None else row["accuracy"])
            high = 100 * (row["high"] if row.get("high") is not None else row["accuracy"])
            style = {**look(index.models[name]), "linestyle": "none"}
            if name == BASE:
                style["marker"] = "o"
            axes.plot([low, high], [i, i], color=style["color"], linewidth=1.1)
            axes.plot([value], [i], **style)
        axes.set_yticks(range(len(names)), [called(index, name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel("right, % (bar: 95% interval)")
        axes.set_title(f"{short(str(task.get('title') or task.get('task')), 40)}, n = {formats.count(task.get('n'))}")
        axes.grid(axis="y", visible=False)
    shared_range(grid[0], "x")
    return (
        figure,
        "Accuracy, base included",
        (
            "Share of answers that are right, mean over problems. Bars: 95% interval over problems; "
            "grey band: the base’s. Overlapping bars do not settle a comparison: both models met the same "
            "problems, so read the paired tests. The bar holds no variation between trainings."
        ),
    )


def _base_band(axes: Axes, base: dict) -> None:
    if base.get("accuracy") is None:
        return
    if base.get("low") is not None and base.get("high") is not None:
        axes.axvspan(100 * base["low"], 100 * base["high"], color="#ededed", linewidth=0, zorder=0)
    axes.axvline(100 * base["accuracy"], color="#000000", linewidth=0.7, zorder=1)


def _tables(source: Source) -> Iterator[Table | None]:
    for task in (source.results.get("evaluation") or {}).get("tasks") or []:
        for make in (accuracy_table, mcnemar_table, agreement_table, alone_table, strata_table):
            yield make(task, source.index)


def _of_tasks(key: str) -> Callable[[dict], list[dict]]:
    """Every task's rows under ``key``, each with its task's name."""
    tasks = rows_at("evaluation", "tasks")
    return lambda results: [{"task": task.get("task"), **row} for task in tasks(results) for row in task.get(key) or []]


SECTION = Section(
    key="accuracy",
    title="Accuracy",
    step="evaluate",
    tables=_tables,
    figures={"accuracy": accuracy},
    csv={
        "accuracy": _of_tasks("models"),
        "mcnemar": _of_tasks("pairs"),
        "alone": _of_tasks("alone"),
        "strata": _of_tasks("strata"),
    },
    texts=ANSWERS,
)
