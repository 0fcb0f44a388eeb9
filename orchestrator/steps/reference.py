"""Log-probabilities of training rows under the base, computed once for all trainings that need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from execution.context import Context
from execution.step import Step, StepKind
from methods import METHODS
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.planning.training_runs import training_runs

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

OBEYED = ("precision", "attention", "head_chunk", "micro_batch", "threads")  # settings of the training
PAIRS, ALL_ROWS = "base", "all-rows"  # names of the two steps


def plan(planned: Planned) -> list[Step]:
    """At most two steps, so that adding a method that reads all rows does not change the step for pairs."""
    study = planned.study
    inputs = {"base": planned.first("base"), "rollouts": planned.first("rollouts")}
    common: dict[str, Any] = {name: getattr(study.training, name) for name in OBEYED}
    table = study.rollouts.table
    names = [name for run in training_runs(study) if (name := name_for(study, run.method)) is not None]
    configs: dict[str, dict[str, Any]] = {
        PAIRS: {"rows": "pairs", "pair_rule": table.pair_rule, "pairs": table.pairs},
        ALL_ROWS: {"rows": "all"},
    }
    return [Step(KIND, name, common | configs[name], inputs) for name in dict.fromkeys(names)]


def name_for(study: Study, method: str) -> str | None:
    """The name of the step that the study's method reads; None if it needs no reference."""
    objective = METHODS[study.objective(method)]
    if not objective.needs_reference(study.settings_of(method)):
        return None
    return PAIRS if objective.view == "pairs" else ALL_ROWS


def run(context: Context) -> None:
    """Write ``reference.safetensors``."""
    from orchestrator.training.reference import compute

    compute(context)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """One forward pass over all training rows, or over those in pairs, as estimated from the settings."""
    spec, table = study.rollouts, study.rollouts.table
    problems = spec.problem_count()
    every = step.config["rows"] == "all"
    if every and table.rows is not None:
        rows = float(table.rows)
    elif not every and table.pairs is not None:
        rows = 2.0 * table.pairs
    elif problems is None:  # a file without a draw: assume the rows of one training
        rows = 2.0 * study.training.last_step * study.training.batch_size
    else:
        every = every or table.pair_rule == "all"
        samples = (spec.samples_a_problem or 2) if every else 2
        rows = problems * (1 - table.heldout) * samples
    return rows * cost.row_tokens(study) * 2 * cost.parameters(shape) / cost.SUSTAINED_FLOPS


KIND = StepKind("reference", version=3, plan=plan, run=run, gpu="task", seconds=seconds)
