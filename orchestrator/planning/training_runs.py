"""The trainings of a study: its methods, and those that differ from them in a rate, a seed or another setting."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from methods import METHODS
from methods import check as check_method
from methods.training.trl_losses import trl_loss
from orchestrator.config.factorial import ADAPTER, METHOD, OWN, SETTINGS, TRAINING, Cells
from orchestrator.config.values import changed

if TYPE_CHECKING:
    from methods.config import LoraSettings, TrainingSettings
    from orchestrator.config.study import Study
    from results.trainings import Role


@dataclass(frozen=True)
class TrainingRun:
    """One training of the study: a method, by its name there, at a learning rate, two seeds and all other settings.

    ``varied``: the factorial's further settings in which it differs from its method, by key; with them it is a variant,
    compared as a method of its own. ``of``: the method or variant that it repeats at another rate or seed.
    """

    name: str
    method: str
    role: Role
    of: str | None
    learning_rate: float
    init_seed: int
    order_seed: int
    objective: str  # its key in METHODS
    settings: Mapping[str, Any]  # the method's own, defaults filled in
    training: TrainingSettings
    adapter: LoraSettings
    varied: Mapping[str, Any] = field(default_factory=dict)


def rate_name(rate: float) -> str:
    """A learning rate as people write it: 5e-7, 1.5e-4."""
    _, digits, exponent = Decimal(repr(rate)).normalize().as_tuple()
    first, *rest = map(str, digits)
    return f"{first}{'.' if rest else ''}{''.join(rest)}e{int(exponent) + len(rest)}"


def training_runs(study: Study) -> list[TrainingRun]:
    """All trainings: the methods', the sweep's further points, the replicas, the factorial's cells; no name twice.

    ``ValueError`` for a combination of settings that cannot be trained.
    """
    runs: dict[str, TrainingRun] = {}
    for run in _all_runs(study):
        first = runs.setdefault(run.name, run)
        if replace(first, role=run.role, of=run.of) != run:
            raise ValueError(f"two trainings would have the name {run.name}: give levels that differ by more")
    return list(runs.values())


def _all_runs(study: Study) -> Iterator[TrainingRun]:
    made: dict[tuple[str, str], _Settled] = {}

    def run(method: str, levels: Mapping[str, Any]) -> TrainingRun:
        varied = {key: value for key, value in levels.items() if key.startswith((ADAPTER, TRAINING, SETTINGS))}
        key = method, repr(varied)  # cells that differ in a rate or a seed alone share the rest
        if key not in made:
            made[key] = _settled(study, method, varied)
        return _run(study, made[key], method, levels)

    for method in study.methods:
        yield run(method, {})
    if study.sweep:
        for rate in sorted(study.sweep.learning_rates):
            yield run(study.sweep.method, {"learning_rate": rate})
    for replica in study.replicas:
        levels = {name: value for name in OWN if (value := getattr(replica, name)) is not None}
        repeated = run(replica.method, levels)
        yield replace(repeated, role="rate") if repeated.role == "sweep" else repeated
    for number, cells in enumerate(study.factorial):
        try:
            yield from (run(levels[METHOD], levels) for levels in combinations(study, cells))
        except ValueError as error:
            raise ValueError(f"factorial.{number}: {error}") from None


def combinations(study: Study, cells: Cells) -> list[dict[str, Any]]:
    """The levels of each training of ``cells``, the study's own filled in; ``ValueError`` if ``exclude`` is wrong."""
    own: dict[str, tuple[Any, ...]] = {"init_seed": (study.seeds.init,), "order_seed": (study.seeds.order,)}
    found: list[dict[str, Any]] = []
    for method in cells.methods or study.methods:
        own["learning_rate"] = (study.learning_rate(method),)
        factors = {METHOD: (method,)} | {name: getattr(cells, name) or own[name] for name in OWN} | cells.vary
        found += [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]
    excluded: set[int] = set()
    for combination in cells.exclude:
        hit = {i for i, levels in enumerate(found) if combination.items() <= levels.items()}
        if not hit:
            raise ValueError(f"exclude: no cell has {', '.join(f'{k} {v}' for k, v in combination.items())}")
        excluded |= hit
    if len(excluded) == len(found):
        raise ValueError("exclude leaves no cell")
    return [levels for i, levels in enumerate(found) if i not in excluded]


class _Settled(NamedTuple):
    """What a method's training has beside its rate and its seeds, with ``varied`` as it takes effect."""

    objective: str
    settings: Mapping[str, Any]
    training: TrainingSettings
    adapter: LoraSettings
    varied: Mapping[str, Any]


def _settled(study: Study, method: str, varied: Mapping[str, Any]) -> _Settled:
    objective, spec = study.objective(method), study.methods[method]
    told = {prefix: _under(varied, prefix) for prefix in (ADAPTER, TRAINING, SETTINGS)}
    settings = check_method(objective, {**spec.settings, **told[SETTINGS]})
    training, adapter = _training(study, objective, told[TRAINING]), changed(study.adapter, told[ADAPTER])
    if training.backend == "trl":
        trl_loss(objective, settings)
    usually = _levels(_training(study, objective, {}), study.adapter, study.settings_of(method))
    own = _levels(training, adapter, settings)
    varied = {key: own[key] for key in varied if own[key] != usually[key]}
    training = _training(study, objective, _under(varied, TRAINING))  # a level that changes nothing is none
    adapter = changed(study.adapter, _under(varied, ADAPTER))
    return _Settled(objective, settings, training, adapter, varied)


def _run(study: Study, settled: _Settled, method: str, levels: Mapping[str, Any]) -> TrainingRun:
    """The method's training with some of its factors at other levels."""
    usual = {"learning_rate": study.learning_rate(method), "init_seed": study.seeds.init,
             "order_seed": study.seeds.order}  # fmt: skip
    at = {name: levels.get(name, value) for name, value in usual.items()}
    different = {name: value for name, value in at.items() if value != usual[name]}
    return TrainingRun(
        name=run_name(method, different, settled.varied),
        method=method,
        role=_role(different.keys(), bool(settled.varied)),
        of=run_name(method, {}, settled.varied) if different else None,
        **settled._asdict(),
        **at,
    )


def _training(study: Study, objective: str, values: Mapping[str, Any]) -> TrainingSettings:
    """The study's settings of a training with other ``values``; a method on pairs sees all of them either way."""
    settings = changed(study.training, values)
    return replace(settings, examples="all") if METHODS[objective].view == "pairs" else settings


def _under(varied: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in varied.items() if key.startswith(prefix)}


def _levels(training: TrainingSettings, adapter: LoraSettings, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The level of every further factor by key, as it takes effect: a step that is left out is the last one."""
    effective = vars(training) | {"run_steps": training.last_step, "report_step": training.reported_step}
    told = {TRAINING: effective, ADAPTER: vars(adapter), SETTINGS: settings}
    return {f"{prefix}{name}": value for prefix, of in told.items() for name, value in of.items()}


def run_name(method: str, different: Mapping[str, Any], varied: Mapping[str, Any]) -> str:
    """The name of a method's training that differs from it in rate or seeds, and in other settings by key."""
    parts = [method]
    if "learning_rate" in different:
        parts.append(f"lr{rate_name(different['learning_rate'])}")
    parts += [f"{key.rpartition('.')[2]}{_shown(value)}" for key, value in varied.items()]
    parts += [
        f"{name.removesuffix('_seed')}{different[name]}" for name in ("order_seed", "init_seed") if name in different
    ]
    return "-".join(parts)


def _shown(value: Any) -> str:
    """A level within a name."""
    if isinstance(value, float):
        return rate_name(value) if "e" in repr(value) else f"{value:.15g}"
    return re.sub(r"[^A-Za-z0-9.]+", "_", str(value))[:40]


def _role(different: Collection[str], varied: bool) -> Role:
    """What it is beside the method or variant that it repeats; ``cell`` where it differs in several things."""
    if not different:
        return "variant" if varied else "method"
    alone: dict[str, Role] = {"learning_rate": "sweep", "order_seed": "order", "init_seed": "init"}
    return alone[next(iter(different))] if len(different) == 1 else "cell"


def largest_rank(study: Study) -> int:
    """The largest rank of an adapter among the trainings."""
    return max(run.adapter.rank for run in training_runs(study))


def sweep_points(study: Study) -> list[TrainingRun]:
    """The trainings that are points of the sweep, by learning rate; the method's own run is one if its rate is."""
    if study.sweep is None:
        return []
    wanted = set(study.sweep.learning_rates)
    seeds = study.seeds.init, study.seeds.order
    points = [r for r in training_runs(study) if r.method == study.sweep.method and r.learning_rate in wanted]
    alone = [r for r in points if (r.init_seed, r.order_seed) == seeds and not r.varied]
    return sorted(alone, key=lambda run: run.learning_rate)
