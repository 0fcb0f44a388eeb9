"""Losses on held-out rows: at every model, and along the straight path between pairs of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

FILE = "connectivity.json"


class Settings(Frozen):
    """Losses on held-out rows at the models and along straight paths between pairs of them."""

    pairs: Several[Two[str]] = ()
    points: Annotated[int, Field(ge=3)] = 5  # ends included
    rows: Count = 64  # held-out right rows, at most


def plan(planned: Planned) -> list[Step]:
    study, spec = planned.study, planned.study.analysis
    if not study.rollouts.table.heldout:
        return []
    config = spec.connectivity.model_dump() | {"threads": spec.threads, "attention": attention_in(study, "float32")}
    inputs = {"base": planned.first("base"), **as_inputs(planned), "rollouts": planned.first("rollouts")}
    return [Step(KIND, "paths", config, inputs, collective=ADAPTER)]


def run(context: Context) -> None:
    """Writes ``connectivity.json``: ``losses`` (nll of right and wrong rows, KL to base) and ``paths``."""
    from orchestrator.measurements.connectivity import measure_paths

    measure_paths(context)


def parts(step: Step) -> int:
    """Every worker takes some of the models and some of the points."""
    return max(1 + len(step.spare_roles), points_between(step))


def points_between(step: Step) -> int:
    """The points between models at which a loss is taken."""
    return len(step.config["pairs"]) * (step.config["points"] - 2)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Forward passes over held-out rows: right and wrong ones at the models, right ones on the paths between.

    The pass over the base that every worker makes for itself is left out: how many there are is not the study's.
    """
    rows = step.config["rows"] * (2 * (1 + len(step.spare_roles)) + points_between(step))
    return cost.measuring_seconds(shape, rows * cost.row_tokens(study))


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text())


KIND = StepKind(
    "connectivity", version=2, plan=plan, run=run, settings=Settings, gpu="items", parts=parts, seconds=seconds,
    words="tasks over models", read=read,
)  # fmt: skip
