"""A model's losses on held-out rows, and its KL to the base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from execution.context import Context
from execution.step import Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.runtime.serving import attention_in
from orchestrator.steps.train import each_model

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from results.document import Measured

FILE = "losses.json"
LOSSES = "losses:"  # role prefix of these steps among the inputs of the paths between models
# Of the base, whose hidden states are what KL is taken to, and of the model. Kept, these states would take gigabytes
# (rows x tokens x hidden size in float32: 8 GB for the reference study), to be checked and loaded for each model; a
# pass more for each is under 1 % of what a training costs there.
PASSES = 2


def plan(planned: Planned) -> list[Step]:
    study, spec = planned.study, planned.study.analysis
    if not study.rollouts.table.heldout:
        return []
    config = {"rows": spec.connectivity.rows, "threads": spec.threads, "attention": attention_in(study, "float32")}
    common = {"base": planned.first("base"), "rollouts": planned.first("rollouts")}
    return [
        Step(KIND, model, config | {"model": model}, inputs) for model, inputs in each_model(planned, common).items()
    ]


def run(context: Context) -> None:
    """Write ``losses.json``: the model's nll of right and of wrong rows, and its KL to base."""
    from orchestrator.measurements.losses import measure_losses

    measure_losses(context)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Forward passes over right and wrong held-out rows, the base's own pass for the KL among them."""
    rows = PASSES * 2 * step.config["rows"]
    return cost.measuring_seconds(shape, rows * cost.row_tokens(study))


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.function import Losses

    return Measured(losses=[read_part(Losses, folder / FILE)])


KIND = StepKind("losses", version=1, plan=plan, run=run, gpu="task", seconds=seconds, read=read)
