"""The plan of a study that searches learning rates: what can run before the rates are chosen, then all of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from execution.step import Step
from execution.store import Store
from orchestrator.config.factorial import Cells
from orchestrator.config.study import Study
from orchestrator.planning.plan import make_plan
from orchestrator.results.read import read_part
from orchestrator.steps.trials.search import SEARCH


@dataclass(frozen=True)
class Stage:
    """``study``: with each searched method at its chosen rate, as far as that is known; ``steps``: what is planned of
    it; ``more``: whether further steps follow once the searches have ended."""

    study: Study
    steps: list[Step]
    more: bool = False


def searches(steps: Sequence[Step]) -> list[Step]:
    return [step for step in steps if step.kind.name == "search"]


def stage(study: Study, facts: Mapping[str, str], store: Store, ended: Collection[str] = ()) -> Stage:
    """What is planned of the study, by what its searches left in the store.

    Until each of them is done, or among the titles that have ``ended``, all steps but those that compare trainings,
    for which the chosen ones are still missing. Then the whole plan, with the trainings at the chosen rates.
    """
    steps = make_plan(study, facts)
    found = searches(steps)
    if not found:
        return Stage(study, steps)
    if any(step.title not in ended and not store.intact(step) for step in found):
        return Stage(study, [step for step in steps if not step.collective], more=True)
    whole = at_best_rates(study, {step.name: best_rate(step, store) for step in found if store.done(step)})
    return Stage(whole, make_plan(whole, facts))


def best_rate(step: Step, store: Store) -> float:
    """The rate that a finished search chose."""
    from results.search import Search

    return read_part(Search, store.folder(step) / SEARCH).learning_rate


def at_best_rates(study: Study, rates: Mapping[str, float]) -> Study:
    """The study with each method's training at its rate, in every order of rows that the search names."""
    assert study.search is not None
    orders = study.search.orders
    cells = [Cells(methods=(method,), learning_rate=(rate,), order_seed=orders) for method, rate in rates.items()]
    return study.model_copy(update={"factorial": (*study.factorial, *cells)})


def search_lines(study: Study, more: bool) -> list[str]:
    """What the searches do, for a plan: trials, the most steps, and that more trainings follow."""
    if study.search is None:
        return []
    search, methods = study.search, study.searched
    rungs = search.rungs(study.training.reported_step)
    orders = search.orders or (study.seeds.order,)
    each = study.training.last_step
    how = {"grid": "the rates listed", "random": "rates drawn", "tpe": "rates suggested by TPE", "asha": "ASHA"}
    halving = f", judged after {', '.join(map(str, rungs))} steps" if len(rungs) > 1 else ""
    most = len(methods) * search.count * each
    rows = f"{len(orders)} order{'s' if len(orders) > 1 else ''} of rows"
    lines = [
        f"search     {search.count} trials of each of {', '.join(methods)} ({how[search.algorithm]}){halving}, on the "
        f"problems held out: at most {most} steps"
    ]
    if more:
        lines.append(
            f"           then each at its best rate in {rows}, and all that compares trainings: these steps are "
            "planned once the rates are known"
        )
    return lines
