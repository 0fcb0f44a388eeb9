"""Activation-weighted geometry: updates compared by their effect on their modules' inputs on the base."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from execution.context import Context
from execution.settings import Every
from execution.step import Step, StepKind
from execution.store import write_json
from orchestrator.bases.base import Shape
from orchestrator.config.values import Frozen
from orchestrator.planning import cost
from orchestrator.planning.kept_pairs import kept_pairs
from orchestrator.runtime.serving import attention_in
from orchestrator.steps.train import ADAPTER, adapters, as_inputs, starts

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from results.document import Measured

FILE = "activations.json"
ROWS_A_SHARD = 16  # fixed, so that sums do not depend on the number of workers
MODULES_A_PASS = 32  # whose stacked factors are on the device together


class Settings(Frozen):
    """Activation-weighted geometry on this many training rows; 0 leaves it out."""

    rows: Every = 64


def plan(planned: Planned) -> list[Step]:
    study, spec = planned.study, planned.study.analysis
    if len(planned.of("train")) < 2 or not spec.activations.rows:
        return []
    config = spec.activations.model_dump() | {"threads": spec.threads, "attention": attention_in(study, "float32")}
    config |= kept_pairs(study).settings()
    inputs = {"base": planned.first("base"), **as_inputs(planned), "rollouts": planned.first("rollouts")}
    runtime = {"starts": starts(planned.of("train"))}  # part of the trainings' keys already
    return [Step(KIND, "rows", config, inputs, runtime, collective=ADAPTER)]


def run(context: Context) -> None:
    """Write ``activations.json``: activation-weighted norms, cosines and Gram of all adapters, on training rows."""
    from orchestrator.measurements.activations import spread, survey
    from orchestrator.measurements.geometry import Place
    from orchestrator.measurements.listed import listed
    from orchestrator.rollouts.dataset import read_table

    places = {name: Place(f"{ADAPTER}{name}", "adapter") for name in adapters(context.inputs)}
    if len(places) < 2:
        raise ValueError(f"{len(places)} adapter was trained: a cosine compares two or more")
    table = read_table(context.inputs["rollouts"], "train")
    rows = [(row["prompt_ids"], row["completion_ids"]) for row in spread(table, context.config["rows"])]
    threads, attention = context.config["threads"], context.config["attention"]
    mapped, slots = context.parallel_map, context.slots
    start = context.runtime["starts"][next(iter(places))]
    pairs = listed(list(places), context.config)
    result = survey(places, rows, context.inputs, threads, mapped, slots, context.progress, attention, start, pairs)
    write_json(context.out / FILE, result)


def parts(step: Step) -> int:
    return math.ceil(step.config["rows"] / ROWS_A_SHARD)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Forward passes of the base over the rows, some modules at a time; the factors' products are negligible."""
    passes = math.ceil(shape.layers * len(study.adapter.targets) / MODULES_A_PASS)
    return cost.measuring_seconds(shape, passes * step.config["rows"] * cost.row_tokens(study))


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.function import Activations

    return Measured(activations=read_part(Activations, folder / FILE))


KIND = StepKind(
    "activations", version=2, plan=plan, run=run, settings=Settings, gpu="items", parts=parts, seconds=seconds,
    words="tasks over rows", read=read,
)  # fmt: skip
