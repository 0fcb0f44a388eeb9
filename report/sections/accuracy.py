"""Accuracy of every model on every task: intervals, paired tests, agreement, strata; the base included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from report import formats
from report.model_index import BASE, ModelIndex
from report.plotting import PAGE, Canvas, Made, called, look, shared_range, short
from report.section import Records, Section, Source
from report.tables import Cell, Column, Line, Table, named, number, records, text, tint, with_failures
from report.text_pages import ANSWERS
from results import Results, dump
from results.evaluation import ComparedPair, Score, SignFlipPair, SolvedAlone, Stratum, Task
from results.part import Part

MOST_COLUMNS = 24  # models up to which a table has each against each


def _points(value: float) -> str:
    """A difference of two accuracies in points, with its sign."""
    return ("+" if value > 0 else "") + formats.fixed(100 * value, 1)


def _from(pair: ComparedPair, first: str) -> tuple[str, str]:
    """The other model's accuracy less that of ``first``, and its interval, in points."""
    if pair.a == first:
        difference, low, high = pair.difference, pair.low, pair.high
    else:
        difference, low, high = -pair.difference, -pair.high, -pair.low
    return _points(difference), f"{_points(low)} to {_points(high)}"


def _difference(task: Task, row: Score) -> Cell:
    if row.name == BASE:
        return number(formats.MISSING, "the base itself")
    base, pair = task.score(BASE), task.pair(row.name, BASE)
    if base is None or pair is None:
        return number(formats.MISSING, "base not evaluated")
    return number(_points(row.accuracy - base.accuracy), detail=_from(pair, BASE)[1])


def _several(task: Task) -> list[tuple[Column, Callable[[Score], Cell]]]:
    """The columns that several samples a problem add: pass@k and maj@k."""
    if task.samples == 1:
        return []
    ks = dict.fromkeys(k for row in task.models for k in row.pass_at if k != "1")

    def passed(k: str) -> Callable[[Score], Cell]:
        return lambda row: number(formats.percent(row.pass_at.get(k)))

    majority = (Column(f"maj@{task.samples}"), lambda row: number(formats.percent(row.maj)))
    return [*((Column(f"pass@{k}"), passed(k)) for k in ks), majority]


def _asked(task: Task) -> str:
    """How the answers were drawn, in words."""
    samples, sampling = task.samples, task.sampling
    if not sampling.temperature:
        drawn = "One greedy answer a problem"
    else:
        drawn = f"{'One sample' if samples == 1 else f'{samples} samples'} a problem"
        drawn += f" at temperature {sampling.temperature:g}"
        drawn += f", top-p {sampling.top_p:g}" if sampling.top_p < 1 else ""
    return f"{drawn}, {formats.count(task.n)} problems."


def _accuracy_caption(task: Task) -> str:
    if task.samples == 1:
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
    smallest = task.smallest_difference
    if smallest.single is None:
        shown = "So few problems can show no difference at all."
    else:
        single = formats.fixed(100 * smallest.single, 1)
        first = "none" if smallest.holm is None else f"{formats.fixed(100 * smallest.holm, 1)} points"
        shown = (
            f"The smallest difference that they could show at p = 0.05, if all that differ went one way: {single} "
            f"points in one comparison, {first} at Holm’s first step; to find one reliably it must be larger."
        )
    return (
        f"{_asked(task)} {how} {shown} The interval is over problems: it does not hold what another training run of "
        "the same method would give."
    )


def accuracy_table(task: Task, index: ModelIndex) -> Table | None:
    """One task: accuracy with its interval, pass@k and maj@k, the difference to the base and its test, lengths."""
    of = formats.count(task.n) + (f" × {task.samples}" if task.samples > 1 else "")

    def share(row: Score, answers: int) -> Cell:
        return number(formats.percent(answers / (row.n * row.samples)))

    def holm(row: Score) -> Cell:
        pair = task.pair(row.name, BASE)
        return number(formats.p_value(pair.p_holm if pair else None), "no test against the base")

    def length(row: Score) -> Cell:
        spread = f"{formats.count(row.median_tokens)} / {formats.count(row.p95_tokens)}"
        return number(formats.significant(row.mean_tokens), detail=spread)

    columns = [
        named(index),
        (Column("Right", f"of {of}"), lambda row: number(formats.count(row.correct))),
        (
            Column("Accuracy", "95% interval"),
            lambda row: number(formats.percent(row.accuracy), detail=formats.interval(row.low, row.high)),
        ),
        *_several(task),
        (Column("To base", "points, 95% interval"), lambda row: _difference(task, row)),
        (Column("p to base", "Holm"), holm),
        (Column("Truncated"), lambda row: share(row, row.truncated)),
        (Column("No answer found"), lambda row: share(row, row.not_found)),
        (Column("Length", "tokens: mean, median / 95th percentile"), length),
    ]
    table = records(
        f"accuracy-{task.task}",
        f"Accuracy on {task.title}",
        index.in_order(task.models),
        columns,
        _accuracy_caption(task),
        kind=lambda row: tint(index, row),
    )
    return with_failures(table, index)


def _matrix(
    task: Task,
    index: ModelIndex,
    key: str,
    title: str,
    cell: Callable[[ComparedPair, str, bool], Cell],
    words: tuple[str, str, str],
    folded: bool = False,
) -> Table | None:
    """Models against models: ``cell`` of the pair, the line's model, and whether it stands above the diagonal.

    ``words`` say what stands above it, what below, and more. Of more than ``MOST_COLUMNS`` models each stands against
    base and the reference alone, with both cells.
    """
    rows = index.in_order(task.models)
    if len(rows) < 2:
        return None
    above, below, more = words
    wide = len(rows) > MOST_COLUMNS
    columns = [row for row in rows if row.name in (BASE, index.reference)] if wide else rows

    def at(row: Score, column: Score, first: bool) -> Cell:
        pair = task.pair(row.name, column.name)
        return Cell("", "diagonal") if pair is None else cell(pair, row.name, first)

    def cells(i: int, row: Score) -> Iterator[Cell]:
        for j, column in enumerate(columns):
            yield from (at(row, column, first) for first in ((True, False) if wide else (j > i,)))

    lines = tuple(Line((text(index.label(row.name)), *cells(i, row)), tint(index, row)) for i, row in enumerate(rows))
    headings = [Column(index.label(row.name), unit) for row in columns for unit in (("1", "2") if wide else ("",))]
    where = ("1", "2") if wide else ("Above the diagonal", "Below it")
    caption = f"{where[0]}: {above}. {where[1]}: {below}. {more}"
    return Table(
        f"{key}-{task.task}", f"{title} on {task.title}", (Column("", kind="text"), *headings), lines, caption, folded
    )


def mcnemar_table(task: Task, index: ModelIndex) -> Table | None:
    """Above the diagonal Holm-adjusted p; below it on how many problems each of the two models alone does better."""

    def cell(pair: ComparedPair, name: str, above: bool) -> Cell:
        if above:
            kind = "strong" if pair.p_holm < 0.05 else "number"
            return Cell(formats.p_value(pair.p_holm), kind, note=f"unadjusted p = {formats.p_value(pair.p)}")
        of_a, of_b = (pair.more_a, pair.more_b) if isinstance(pair, SignFlipPair) else (pair.only_a, pair.only_b)
        first, second = (of_a, of_b) if pair.a == name else (of_b, of_a)
        return Cell(f"{formats.count(first)} : {formats.count(second)}", "faint")

    several = task.samples > 1
    test = "exact p of the sign-flip test over problems" if several else "exact McNemar p"
    below = (
        "problems on which the row’s model has more right samples : the column’s"
        if several
        else "problems that only the row’s model solves : only the column’s"
    )
    above = f"{test}, Holm-adjusted over all {len(task.pairs)} pairs, bold below 0.05"
    more = (
        f"n = {formats.count(task.n)} problems. The test compares two checkpoints, not two "
        "methods: two seeds of one method can differ just as much."
    )
    return _matrix(task, index, "mcnemar", "Paired tests", cell, (above, below, more))


def agreement_table(task: Task, index: ModelIndex) -> Table | None:
    """Above the diagonal how often two models have the same verdict; below it the difference of their accuracies."""

    def cell(pair: ComparedPair, name: str, above: bool) -> Cell:
        if above:
            return number(formats.percent(pair.agreement))
        difference, interval = _from(pair, pair.b if pair.a == name else pair.a)
        return number(difference, detail=interval)

    same = (
        "share of problems on which two models have the same verdict"
        if task.samples == 1
        else "1 less the mean distance of two models’ shares of right samples, which chance between samples lowers"
    )
    below = (
        "the row’s accuracy less the column’s, in points, with its 95% interval, not adjusted for the number of pairs"
    )
    more = "Two models of equal accuracy may solve different problems."
    return _matrix(task, index, "agreement", "Agreement", cell, (same, below, more), folded=True)


def alone_table(task: Task, index: ModelIndex) -> Table | None:
    """The problems that one model alone solves."""
    solved = "solves" if task.samples == 1 else "solves in at least one sample"

    def which(row: SolvedAlone) -> Cell:
        left = row.count - len(row.ids)
        return text(", ".join(row.ids) + (f" and {formats.count(left)} more" if left else ""), "none")

    return records(
        f"alone-{task.task}",
        f"Solved by one model alone on {task.title}",
        index.in_order(task.alone),
        [
            named(index),
            (Column("Problems"), lambda row: number(formats.count(row.count))),
            (Column("Which", kind="text"), which),
        ],
        f"Problems that this model {solved} and no other here does. Of {formats.count(task.n)} problems all models "
        f"solve {formats.count(task.solved_by_all)}, none solves {formats.count(task.solved_by_none)}. A problem "
        "solved alone may be solved by luck.",
        kind=lambda row: tint(index, row),
        folded=True,
    )


def strata_table(task: Task, index: ModelIndex) -> Table | None:
    """Accuracy within each stratum, such as easy and hard problems."""
    sizes = {row.stratum: row.n for row in task.strata}
    accuracies = {(row.name, row.stratum): row.accuracy for row in task.strata}

    def cell(stratum: str) -> Callable[[Stratum], Cell]:
        return lambda row: number(formats.percent(accuracies[row.name, stratum]))

    return records(
        f"strata-{task.task}",
        f"{'Easy and hard on' if sizes.keys() == {'easy', 'hard'} else 'Strata of'} {task.title}",
        index.in_order(task.strata),
        [
            named(index),
            *((Column(stratum, f"n = {formats.count(n)}"), cell(stratum)) for stratum, n in sizes.items()),
        ],
        "Share right within each stratum. Strata are smaller than the task: a few points between "
        "two models are within chance here.",
        kind=lambda row: tint(index, row),
    )


def accuracy(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Accuracy with its interval, a panel a task, the base as a band."""
    tasks = results.tasks
    if not tasks:
        return None
    names = index.order(score.name for task in tasks for score in task.models)
    height = 0.7 + 0.21 * len(names)
    figure, grid = canvas.grid(PAGE if len(tasks) > 1 else 4.6, height, 1, len(tasks), sharey=True)
    for axes, task in zip(grid[0], tasks, strict=True):
        if base := task.score(BASE):
            axes.axvspan(100 * base.low, 100 * base.high, color="#ededed", linewidth=0, zorder=0)
            axes.axvline(100 * base.accuracy, color="#000000", linewidth=0.7, zorder=1)
        for i, name in enumerate(names):
            if score := task.score(name):
                style = {**look(index.models[name]), "linestyle": "none"}
                if name == BASE:
                    style["marker"] = "o"
                axes.plot([100 * score.low, 100 * score.high], [i, i], color=style["color"], linewidth=1.1)
                axes.plot([100 * score.accuracy], [i], **style)
        axes.set_yticks(range(len(names)), [called(index, name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel("right, % (bar: 95% interval)")
        axes.set_title(f"{short(task.title, 40)}, n = {formats.count(task.n)}")
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


def _tables(source: Source) -> Iterator[Table | None]:
    for task in source.results.tasks:
        for make in (accuracy_table, mcnemar_table, agreement_table, alone_table, strata_table):
            yield make(task, source.index)


def _of_tasks(pick: Callable[[Task], Iterable[Part]]) -> Callable[[Results], Records]:
    """The rows that ``pick`` finds in every task, each with its task's name."""
    return lambda results: [{"task": task.task, **dump(row)} for task in results.tasks for row in pick(task)]


SECTION = Section(
    key="accuracy",
    title="Accuracy",
    step="evaluate",
    tables=_tables,
    figures={"accuracy": accuracy},
    csv={
        "accuracy": _of_tasks(lambda task: task.models),
        "mcnemar": _of_tasks(lambda task: task.pairs),
        "alone": _of_tasks(lambda task: task.alone),
        "strata": _of_tasks(lambda task: task.strata),
    },
    texts=ANSWERS,
)
