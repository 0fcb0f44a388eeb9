"""The train step: one objective at one learning rate with two seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execution.context import Context, Inputs
from execution.settings import keyed, unkeyed
from execution.step import RunsAs, Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.planning.training_runs import training_runs
from orchestrator.steps.reference import name_for

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

ADAPTER = "adapter:"  # role prefix of trainings among the inputs of collective steps
BASE = "base"  # the model without an adapter, among names of trainings


def plan(planned: Planned) -> list[Step]:
    study, table = planned.study, planned.study.rollouts.table
    inputs = {"base": planned.first("base"), "rollouts": planned.first("rollouts")}
    references = {step.name: step for step in planned.of("reference")}
    steps = []
    for one in training_runs(study):
        training = one.training
        config = keyed(training) | {
            "report_step": training.reported_step,
            "run_steps": training.last_step,
            "pair_rule": table.pair_rule,
            "pairs": table.pairs,
            "adapter": keyed(one.adapter),
            "method": one.objective,
            "settings": one.settings,
            "learning_rate": one.learning_rate,
            "init_seed": one.init_seed,
            "order_seed": one.order_seed,
        }
        reference = name_for(study, one)
        read = inputs if reference is None else inputs | {"reference": references[reference]}
        steps.append(Step(KIND, one.name, config, read, unkeyed(training), role=one.role))
    return steps


def run(context: Context) -> None:
    """Write ``adapter/`` (PEFT, float32), ``log.jsonl``, ``training.json``, and ``checkpoints/`` if configured."""
    from orchestrator.training.train import train

    train(context)


def assist(config: Mapping[str, Any], runtime: Mapping[str, Any], inputs: Inputs) -> None:
    """The part of ranks above 0 in a data-parallel training; writes nothing."""
    from orchestrator.training.train import assist

    assist(config, runtime, inputs)


def adapters(inputs: Inputs) -> dict[str, Path]:
    """The adapter folders of the trainings among a step's inputs, by name."""
    trained = {r.removeprefix(ADAPTER): folder for r, folder in inputs.items() if r.startswith(ADAPTER)}
    return {name: folder / "adapter" for name, folder in trained.items()}


def starts(trainings: Sequence[Step]) -> dict[str, str]:
    """The factor that each training draws, a or b, by its name: for steps that read trainings, whose keys hold it."""
    return {step.name: step.config["adapter"].get("start", "a") for step in trainings}


def as_inputs(planned: Planned) -> dict[str, Step]:
    """All trainings by their roles among a collective step's inputs."""
    return {f"{ADAPTER}{step.name}": step for step in planned.of("train")}


def each_model(planned: Planned, common: Mapping[str, Step]) -> dict[str, dict[str, Step]]:
    """What a step about one model reads, for base, each training and each scaled copy of one by name: ``common``, and
    the adapter."""
    adapted = [*planned.of("train"), *planned.of("scale")]
    return {BASE: dict(common)} | {step.name: {**common, "adapter": step} for step in adapted}


def runs_as(step: Step) -> RunsAs:
    return "training"


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Estimated seconds on the GPU share that its workers have together."""
    held = study.placement.gpus_per_training * step.config["workers"]
    return cost.training_seconds(study, shape, step.config["method"], step.config) / held


KIND = StepKind("train", version=4, plan=plan, run=run, assist=assist, runs_as=runs_as, seconds=seconds)
