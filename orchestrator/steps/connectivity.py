"""Losses on held-out rows along the straight path between pairs of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from execution.context import Context
from execution.settings import Count
from execution.step import Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.config.values import Frozen, Several, Two
from orchestrator.planning import cost
from orchestrator.runtime.serving import attention_in
from orchestrator.steps.losses import LOSSES
from orchestrator.steps.train import ADAPTER, as_inputs

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from results.document import Measured

FILE = "connectivity.json"


class Settings(Frozen):
    """Losses on held-out rows at the models and on straight paths between pairs of them."""

    pairs: Several[Two[str]] = ()
    points: Annotated[int, Field(ge=3)] = 5  # ends included
    rows: Count = 64  # largest number of held-out right rows, and of wrong ones


def plan(planned: Planned) -> list[Step]:
    """One step for all paths; it reads what its pairs name, so that a further training leaves it as it is."""
    study, spec = planned.study, planned.study.analysis
    losses = {f"{LOSSES}{step.name}": step for step in planned.of("losses")}
    if not losses:
        return []
    config = spec.connectivity.model_dump() | {"threads": spec.threads, "attention": attention_in(study, "float32")}
    ends = dict.fromkeys(name for pair in spec.connectivity.pairs for name in pair)
    models = as_inputs(planned) | losses
    wanted = [f"{prefix}{name}" for prefix in (ADAPTER, LOSSES) for name in ends]  # there is no adapter of base
    inputs = {"base": planned.first("base"), "rollouts": planned.first("rollouts")}
    inputs |= {role: models[role] for role in wanted if role in models}
    return [Step(KIND, "paths", config, inputs, collective=(ADAPTER, LOSSES))]


def run(context: Context) -> None:
    """Write ``connectivity.json``: the loss along each path whose ends were measured."""
    from orchestrator.measurements.connectivity import measure_paths

    measure_paths(context)


def parts(step: Step) -> int:
    """Each worker takes some of the points."""
    return max(1, points_between(step))


def points_between(step: Step) -> int:
    """Number of points between models at which the loss is computed."""
    return len(step.config["pairs"]) * (step.config["points"] - 2)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Forward passes over right held-out rows between the models; the ends are measured already."""
    return cost.measuring_seconds(shape, step.config["rows"] * points_between(step) * cost.row_tokens(study))


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.function import Connectivity

    return Measured(connectivity=read_part(Connectivity, folder / FILE))


KIND = StepKind(
    "connectivity", version=3, plan=plan, run=run, settings=Settings, gpu="items", parts=parts, seconds=seconds,
    words="tasks over points", read=read,
)  # fmt: skip
