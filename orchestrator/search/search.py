"""The search step: runs one method's trials and writes what became of each, and the chosen rate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.statistics.significance import wilson
from execution.context import Context, StepFailed
from execution.store import write_json
from orchestrator.search.log import Log
from orchestrator.search.trials import Trials
from orchestrator.steps.trials.search import SEARCH
from results import dump
from results.part import present
from results.search import Rung, Search, Stopped, Trial


def search(context: Context) -> None:
    """Write ``search.json``, see :class:`results.search.Search`. ``ValueError`` if no trial was trained to the end."""
    config, trials = context.config, Trials.of(context.config, context.runtime)
    log = Log(context.work, context.keep)
    if context.tuner is not None:
        context.tuner(trials, config, log)
    else:
        in_order(trials, config["rates"], context)
    write_json(context.out / SEARCH, dump(found(trials, config, log, context)), sort=False)


def in_order(trials: Trials, rates: Sequence[float] | None, context: Context) -> None:
    """Every trial after the one before, to its end. ``ValueError`` for an algorithm that has to decide meanwhile."""
    if rates is None or len(trials.rungs) > 1:
        raise ValueError(f"{context.config['algorithm']} needs Ray: run without --serial")
    for number, rate in enumerate(rates):
        context.progress(f"trial {number + 1} of {len(rates)}")
        with contextlib.suppress(StepFailed):
            assert context.ask is not None
            trials.counts(rate, 0, context.ask)


def found(trials: Trials, config: Mapping[str, Any], log: Log, context: Context) -> Search:
    """All trials as the store has them and the log says, and the choice among those that were trained to the end."""
    rates = config["rates"] if config["rates"] is not None else log.rates
    table = [_trial(trials, number, rate, log, context) for number, rate in enumerate(rates)]
    chosen = best(table)
    if chosen is None:
        failed = next(trial for trial in table if trial.error is not None)
        raise ValueError(f"none of the {len(table)} trials was trained to the end; {failed.name}: {failed.error}")
    return Search(
        method=trials.method,
        algorithm=config["algorithm"],
        rungs=list(trials.rungs),
        trials=sorted(table, key=lambda trial: trial.learning_rate),
        chosen=chosen.name,
        learning_rate=chosen.learning_rate,
        steps=sum(trial.steps for trial in table),
        full_steps=len(table) * trials.rungs[-1],
    )


def _trial(trials: Trials, number: int, rate: float, log: Log, context: Context) -> Trial:
    rungs: list[Rung] = []
    status, error, stopped = "finished", None, log.stopped(number)
    assert context.ask is not None
    for rung in range(len(trials.rungs)):
        try:
            rungs.append(judged(trials.rungs[rung], *trials.counts(rate, rung, context.ask)))
        except StepFailed as failure:
            status, error = "failed", str(failure)
            break
        if stopped is not None and stopped["rung"] == rung:
            status = "stopped"
            break
    told = stopped if status == "stopped" else None
    why = told and Stopped(
        steps=trials.rungs[told["rung"]], value=told["value"], cutoff=told["cutoff"] or 0.0, values=told["values"]
    )
    return Trial(
        name=trials.name(rate),
        learning_rate=rate,
        status=status,  # type: ignore[arg-type]  # one of the three
        steps=rungs[-1].steps if rungs else 0,
        rungs=rungs,
        **present(stopped=why, error=error),
    )


def judged(steps: int, right: int, problems: int) -> Rung:
    """The accuracy of ``right`` in ``problems`` answers with its standard error, sqrt(p (1 - p) / n), and interval."""
    share, (low, high) = right / problems, wilson(right, problems)
    error = math.sqrt(share * (1 - share) / problems)
    return Rung(steps=steps, right=right, problems=problems, accuracy=share, standard_error=error, low=low, high=high)


def best(table: Sequence[Trial]) -> Trial | None:
    """The most accurate of the trials that were trained to the end, of equal ones that of the smallest rate."""
    whole = [trial for trial in table if trial.status == "finished"]
    return min(whole, key=lambda trial: (-trial.rungs[-1].accuracy, trial.learning_rate), default=None)
