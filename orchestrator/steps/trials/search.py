"""The search step: one method's learning rate, chosen on held-out problems among trials that are steps themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execution.context import Context
from execution.step import RunsAs, Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.steps.train import KIND as TRAIN
from orchestrator.steps.trials import validate

if TYPE_CHECKING:
    from orchestrator.config.search import Search
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from results.document import Measured

SEARCH = "search.json"


def plan(planned: Planned) -> list[Step]:
    study = planned.study
    if study.search is None:
        return []
    own = {step.name: step for step in planned.of("train")}
    validation = validate.template(planned)
    return [_step(study, study.search, own[method], validation) for method in study.searched]


def _step(study: Study, search: Search, train: Step, validation: Step) -> Step:
    """The search of one method: its key holds all that decides its trials, their steps' settings among that."""
    from orchestrator.search.trials import rates_of

    rates = rates_of(search)
    config: dict[str, Any] = {
        "algorithm": search.algorithm,
        "rates": None if rates is None else list(rates),
        "rungs": list(search.rungs(study.training.reported_step)),
        "train": {"version": TRAIN.version, **{k: v for k, v in train.config.items() if k != "learning_rate"}},
        "validate": {"version": validate.KIND.version, **validation.config},
    }
    if search.algorithm == "asha":
        config["reduction"] = search.reduction
    if rates is None:
        config |= {"between": list(search.between or ()), "trials": search.count, "seed": search.seed}
    return Step(KIND, train.name, config, train.inputs, {"train": train, "validate": validation})


def run(context: Context) -> None:
    """Write ``search.json``."""
    from orchestrator.search.search import search

    search(context)


def trials(config: Mapping[str, Any]) -> int:
    """How many trials a search step has."""
    return len(config["rates"]) if config["rates"] is not None else config["trials"]


def runs_as(step: Step) -> RunsAs:
    return "search"


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Of all trials, each trained to its end and judged once."""
    own = TRAIN.seconds(study, shape, step.runtime["train"])
    return trials(step.config) * (own + validate.KIND.seconds(study, shape, step.runtime["validate"]))


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.search import Search

    return Measured(search=[read_part(Search, folder / SEARCH)])


KIND = StepKind(
    "search",
    version=1,
    plan=plan,
    run=run,
    runs_as=runs_as,
    parts=lambda step: trials(step.config),
    seconds=seconds,
    words="search (Ray Tune)",
    read=read,
)
