"""Which learning rate is best for each method: the trials of its search, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from report import formats
from report.model_index import ModelIndex
from report.section import Records, Section, Source
from report.tables import Cell, Column, Table, number, records, text
from results import Results, dump
from results.search import Search, Trial

HOW = {
    "grid": "every rate of a list",
    "random": "rates drawn log-uniformly",
    "tpe": "rates suggested by TPE from the trials before",
    "asha": "ASHA: of the trials at a rung, those in the best part so far go on",
}


def tables(source: Source) -> Iterable[Table | None]:
    """What was chosen, then the trials of each method."""
    searches = source.results.search or []
    yield chosen_table(searches, source.index)
    for search in searches:
        yield trials_table(search, source.index)


def chosen_table(searches: Sequence[Search], index: ModelIndex) -> Table | None:
    """A row a method: its rate, and what the search cost."""
    if not searches:
        return None
    of = {search.method: _chosen(search) for search in searches}
    return records(
        "search",
        "The best rate of each method",
        searches,
        [
            (Column("Method", kind="text"), lambda row: text(index.label(row.method))),
            (Column("Best rate"), lambda row: number(formats.rate(row.learning_rate))),
            (Column("Held-out problems", "right, 95% interval"), lambda row: accuracy(of[row.method])),
            (Column("As good", "within one standard error"), lambda row: text(_as_good(row))),
            (Column("Trials"), lambda row: number(formats.count(len(row.trials)))),
            (Column("Steps", "of all trials"), lambda row: number(formats.count(row.steps))),
            (Column("In full", "each to its end"), lambda row: number(formats.count(row.full_steps))),
        ],
        f"{_how(searches)}. Chosen is the rate whose training was most accurate on the problems that are held out of "
        "the rollouts, of equally accurate ones the smallest; none of these is among the problems that are evaluated. "
        "The accuracy is the largest of several, so it is too good on average; and one training a rate tells no rate "
        "from another where their intervals overlap widely.",
    )


def _how(searches: Sequence[Search]) -> str:
    counts = formats.span(len(search.trials) for search in searches)
    return f"{counts} trials a method ({HOW[searches[0].algorithm]})"


def _chosen(search: Search) -> Trial:
    return next(trial for trial in search.trials if trial.name == search.chosen)


def _as_good(search: Search) -> str:
    """The other whole trials that are at most a standard error of the best below it."""
    best = _chosen(search).rungs[-1]
    whole = [trial for trial in search.trials if trial.status == "finished" and trial.name != search.chosen]
    near = [trial for trial in whole if trial.rungs[-1].accuracy >= best.accuracy - best.standard_error]
    return formats.listing([formats.rate(trial.learning_rate) for trial in near]) or "none"


def accuracy(trial: Trial) -> Cell:
    """At its last rung."""
    if not trial.rungs:
        return number(formats.MISSING, "not answered")
    last = trial.rungs[-1]
    return number(formats.percent(last.accuracy), detail=formats.interval(last.low, last.high))


def trials_table(search: Search, index: ModelIndex) -> Table | None:
    """One method's trials by learning rate."""
    label = index.label(search.method)

    def ended(trial: Trial) -> Cell:
        return text("chosen" if trial.name == search.chosen else trial.status)

    rungs = f" A trial is judged after {formats.listing([str(steps) for steps in search.rungs])} steps." * (
        len(search.rungs) > 1
    )
    return records(
        f"search-{search.method}",
        f"Trials of {label}",
        search.trials,
        [
            (Column("Learning rate"), lambda row: number(formats.rate(row.learning_rate))),
            (Column("Steps", "trained"), lambda row: number(formats.count(row.steps))),
            (Column("Held-out problems", "right, 95% interval"), accuracy),
            (Column("", kind="text"), ended),
            (Column("Why", kind="text"), lambda row: text(_why(row), "it was trained to its end")),
        ],
        f"One training a rate, from one initial adapter and in one order of rows.{rungs}",
        kind=lambda row: "reference" if row.name == search.chosen else "failed" if row.error else "",
        folded=len(search.trials) > 8,
    )


def _why(trial: Trial) -> str:
    if trial.error is not None:
        return trial.error
    if trial.stopped is None:
        return ""
    stopped = trial.stopped
    return (
        f"{formats.percent(stopped.value)} after {formats.count(stopped.steps)} steps, below the "
        f"{formats.percent(stopped.cutoff)} that went on, by the {len(stopped.values)} there before"
    )


def _rows(results: Results) -> Records:
    """A row a trial, with its last rung."""
    return [
        {"method": search.method, "algorithm": search.algorithm, "chosen": trial.name == search.chosen}
        | {key: value for key, value in dump(trial).items() if key not in ("rungs", "stopped")}
        | (dump(trial.rungs[-1]) if trial.rungs else {})
        | {f"stopped_{key}": value for key, value in (dump(trial.stopped).items() if trial.stopped else ())}
        for search in results.search or ()
        for trial in search.trials
    ]


SECTION = Section(
    key="search",
    title="Which learning rate is best for each method?",
    step="search",
    tables=tables,
    csv={"search": _rows},
    in_comparison=False,
    optional=True,
)
