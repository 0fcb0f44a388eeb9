"""Losses on held-out rows at every model, and on the straight path between pairs of models."""

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
from orchestrator.steps.serving import attention_in
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
    study, spec = planned.study, planned.study.analysis
    if not study.rollouts.table.heldout:
        return []
    config = spec.connectivity.model_dump() | {"threads": spec.threads, "attention": attention_in(study, "float32")}
    inputs = {"base": planned.first("base"), **as_inputs(planned), "rollouts": planned.first("rollouts")}
    return [Step(KIND, "paths", config, inputs, collective=ADAPTER)]


def run(context: Context) -> None:
    """Write ``connectivity.json``: ``losses`` (nll of right and wrong rows, KL to base) and ``paths``."""
    from orchestrator.measurements.connectivity import measure_paths

    measure_paths(context)


def parts(step: Step) -> int:
    """Each worker takes some of the models and some of the points."""
    return max(1 + len(step.spare_roles), points_between(step))


def points_between(step: Step) -> int:
    """Number of points between models at which the loss is computed."""
    return len(step.config["pairs"]) * (step.config["points"] - 2)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Forward passes over held-out rows: right and wrong ones at the models, right ones on the paths.

    Each worker's own pass over the base is not counted, since the number of workers is not known.
    """
    rows = step.config["rows"] * (2 * (1 + len(step.spare_roles)) + points_between(step))
    return cost.measuring_seconds(shape, rows * cost.row_tokens(study))


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured

    return read_part(Measured, folder / FILE)


KIND = StepKind(
    "connectivity", version=2, plan=plan, run=run, settings=Settings, gpu="items", parts=parts, seconds=seconds,
    words="tasks over models", read=read,
)  # fmt: skip
