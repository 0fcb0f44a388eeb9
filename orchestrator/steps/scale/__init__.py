"""The scale step: a training's update times a number, so that its norm is that of the reference's update.

Its folder holds an adapter as a training's does, which is evaluated and measured as another model. It is no training:
its direction is that of the adapter it was made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from execution.context import Context
from execution.step import Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.planning.scaled_copies import scaled_copies
from orchestrator.planning.training_runs import training_runs

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from results.document import Measured

FILE = "scaled.json"
TRAINING, REFERENCE = "training", "reference"  # roles of the two trainings among the inputs
NORMS = 3  # of the training, of the reference, and of what was written


def plan(planned: Planned) -> list[Step]:
    trainings = {step.name: step for step in planned.of("train")}
    return [
        Step(
            KIND,
            copy.name,
            {"name": copy.name, "of": copy.of, "to": copy.to},
            {TRAINING: trainings[copy.of], REFERENCE: trainings[copy.to]},
            {"start": trainings[copy.of].config["adapter"].get("start", "a")},  # part of the training's key already
        )
        for copy in scaled_copies(planned.study, training_runs(planned.study))
    ]


def run(context: Context) -> None:
    """Write ``adapter/`` (PEFT, float32) and ``scaled.json``; see ``Scaled`` in ``results/scaled.py``."""
    from orchestrator.steps.scale.compute import scale

    scale(context)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Products of rank x rank x width at every module for each norm."""
    known = cost.module_shapes(shape)
    width = shape.layers * sum(sum(known[t]) for t in study.adapter.targets if t in known)
    return NORMS * 2 * study.adapter.rank**2 * width / cost.CPU_FLOPS


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.scaled import Scaled

    return Measured(scaled=[read_part(Scaled, folder / FILE)])


KIND = StepKind("scale", version=1, plan=plan, run=run, seconds=seconds, read=read)
