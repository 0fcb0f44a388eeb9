"""Log-probabilities of training rows under the base, computed once for all trainings that need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from execution.context import Context
from execution.step import Step, StepKind
from methods import METHODS
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.planning.training_runs import TrainingRun, training_runs

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

OBEYED = ("precision", "attention", "head_chunk", "micro_batch", "threads")  # settings of the training
PAIRS, ALL_ROWS = "base", "all-rows"  # names of the two steps


def plan(planned: Planned) -> list[Step]:
    """One step for all trainings on pairs and one for those on all rows, so that adding a method that reads all rows
    does not change the step for pairs; further ones where the factorial varies a setting that they obey."""
    study = planned.study
    inputs = {"base": planned.first("base"), "rollouts": planned.first("rollouts")}
    table = study.rollouts.table
    rows: dict[str, dict[str, Any]] = {
        PAIRS: {"rows": "pairs", "pair_rule": table.pair_rule, "pairs": table.pairs},
        ALL_ROWS: {"rows": "all"},
    }
    configs: dict[str, dict[str, Any]] = {}
    for run in training_runs(study):
        if (name := name_for(study, run)) is not None:
            obeyed = {setting: getattr(run.training, setting) for setting in OBEYED}
            configs[name] = obeyed | (rows[PAIRS] if METHODS[run.objective].view == "pairs" else rows[ALL_ROWS])
    return [Step(KIND, name, config, inputs) for name, config in configs.items()]


def name_for(study: Study, run: TrainingRun) -> str | None:
    """The name of the step that a training reads; None if it needs no reference."""
    objective = METHODS[run.objective]
    if not objective.needs_reference(run.settings):
        return None
    usual, own = ({name: getattr(of, name) for name in OBEYED} for of in (study.training, run.training))
    name = PAIRS if objective.view == "pairs" else ALL_ROWS
    return "-".join([name, *(f"{setting}{value}" for setting, value in own.items() if value != usual[setting])])


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
