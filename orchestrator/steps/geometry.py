"""Weight geometry: every pair of adapters at every module, from the low-rank factors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from execution.context import Context
from execution.step import Step, StepKind
from execution.store import write_json
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.planning.kept_pairs import kept_pairs
from orchestrator.steps.train import ADAPTER, adapters, as_inputs, starts

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from results.document import Measured

FILE = "geometry.json"
LAYERS = "layers.safetensors"  # of a study that does not list every pair by layer: each layer's Gram
CHECKPOINTS = "checkpoints"


def plan(planned: Planned) -> list[Step]:
    trainings, spec = planned.of("train"), planned.study.analysis
    if len(trainings) < 2:
        return []
    config = spec.model_dump(include={"top", "chance_draws", "seed", "threads"}) | kept_pairs(planned.study).settings()
    runtime = {  # part of the trainings' keys already
        "init_seeds": {t.name: t.config["init_seed"] for t in trainings},
        "starts": starts(trainings),
    }
    return [Step(KIND, "weights", config, as_inputs(planned), runtime, collective=ADAPTER)]


def run(context: Context) -> None:
    """Write ``geometry.json``: adapters, pairs, layers, the Gram, the checkpoints, and the floors that need no further
    training: chance, and an adapter against itself. Where not every pair is listed by layer also
    ``layers.safetensors``: grams, L x M x M float64, in the order of an adapter's layers."""
    from orchestrator.measurements.geometry import Place, Subject, survey, write_layers

    seeds, drawn = context.runtime["init_seeds"], context.runtime["starts"]
    subjects = []
    for name in adapters(context.inputs):
        role = f"{ADAPTER}{name}"
        saved = sorted((context.inputs[role] / CHECKPOINTS).glob("step-*"))
        kept = {int(path.name.removeprefix("step-")): Place(role, f"{CHECKPOINTS}/{path.name}") for path in saved}
        subjects.append(Subject(name, Place(role, "adapter"), seeds[name], kept, drawn[name]))
    if len(subjects) < 2:
        raise ValueError(f"{len(subjects)} adapter was trained: geometry compares two or more")
    result, grams = survey(subjects, context.inputs, context.config, context.parallel_map, context.progress)
    write_json(context.out / FILE, result)
    if grams is not None:
        write_layers(context.out / LAYERS, grams)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Algebra of low-rank factors: some products of rank x rank x width per pair of adapters and module."""
    known, rank = cost.module_shapes(shape), study.adapter.rank
    width = shape.layers * sum(sum(known[t]) for t in study.adapter.targets if t in known)
    pairs = math.comb(len(step.inputs), 2)
    return pairs * 4 * rank**2 * width / cost.CPU_FLOPS


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.weights import MeasuredGeometry

    return Measured(geometry=read_part(MeasuredGeometry, folder / FILE))


KIND = StepKind("geometry", version=3, plan=plan, run=run, seconds=seconds, words="tasks over modules", read=read)
