"""The trainings of a study: its methods, the points of its sweep, its replicas."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from results.trainings import Role


@dataclass(frozen=True)
class TrainingRun:
    """One training of the study: a method, by its name there, at a learning rate and two seeds."""

    name: str
    method: str
    role: Role
    learning_rate: float
    init_seed: int
    order_seed: int
    objective: str  # its key in METHODS


def rate_name(rate: float) -> str:
    """A learning rate as people write it: 5e-7, 1.5e-4."""
    _, digits, exponent = Decimal(repr(rate)).normalize().as_tuple()
    first, *rest = map(str, digits)
    return f"{first}{'.' if rest else ''}{''.join(rest)}e{int(exponent) + len(rest)}"


def training_runs(study: Study) -> list[TrainingRun]:
    """All trainings: the methods, the sweep's further points, the replicas; no name twice."""
    init, order = study.seeds.init, study.seeds.order
    runs = [TrainingRun(m, m, "method", study.learning_rate(m), init, order, study.objective(m)) for m in study.methods]
    if study.sweep:
        method = study.sweep.method
        for rate in sorted(set(study.sweep.learning_rates) - {study.learning_rate(method)}):
            name = f"{method}-lr{rate_name(rate)}"
            runs.append(TrainingRun(name, method, "sweep", rate, init, order, study.objective(method)))
    for r in study.replicas:
        rate, objective = study.learning_rate(r.method), study.objective(r.method)
        if r.order_seed is not None:
            run = TrainingRun(f"{r.method}-order{r.order_seed}", r.method, "order", rate, init, r.order_seed, objective)
        elif r.init_seed is not None:
            run = TrainingRun(f"{r.method}-init{r.init_seed}", r.method, "init", rate, r.init_seed, order, objective)
        else:
            assert r.learning_rate is not None
            name = f"{r.method}-lr{rate_name(r.learning_rate)}"
            run = TrainingRun(name, r.method, "rate", r.learning_rate, init, order, objective)
        if all(run.name != other.name for other in runs):
            runs.append(run)
    return runs


def sweep_points(study: Study) -> list[TrainingRun]:
    """The trainings that are points of the sweep, by learning rate; the method's own run is one if its rate is."""
    if study.sweep is None:
        return []
    wanted = set(study.sweep.learning_rates)
    init, order = study.seeds.init, study.seeds.order
    points = [r for r in training_runs(study) if r.method == study.sweep.method and r.learning_rate in wanted]
    return sorted((r for r in points if (r.init_seed, r.order_seed) == (init, order)), key=lambda r: r.learning_rate)
