"""The updates beside the base weights: what lies in their top directions, what comes from outside."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from execution.context import Context
from execution.settings import Every
from execution.step import Step, StepKind
from execution.store import write_json
from orchestrator.bases.base import Shape
from orchestrator.config.values import Frozen
from orchestrator.planning import cost
from orchestrator.steps.train import ADAPTER, adapters, as_inputs

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

FILE = "spectra.json"
EIGEN = 10  # n^3: what all eigenvectors of an n x n matrix take, about
PRODUCTS = 12  # of a base weight with a vector that each rank of a model's update takes, about


class Settings(Frozen):
    """The updates beside the base weights' own singular directions: how many of them; 0 leaves it out.

    ``threshold`` is the cosine below which a direction of the sum is an intruder.
    """

    top: Every = 10
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


def plan(planned: Planned) -> list[Step]:
    spec = planned.study.analysis
    if not spec.spectra.top:
        return []
    config = spec.spectra.model_dump() | {"threads": spec.threads}
    return [Step(KIND, "base", config, {"base": planned.first("base"), **as_inputs(planned)}, collective=ADAPTER)]


def run(context: Context) -> None:
    """Writes ``spectra.json``: shares, relative norms and intruder dimensions of every adapter."""
    from orchestrator.measurements.geometry import Place
    from orchestrator.measurements.spectra import survey

    places = {name: Place(f"{ADAPTER}{name}", "adapter") for name in adapters(context.inputs)}
    if not places:
        raise ValueError("no adapter was trained: there is no update to look at")
    result = survey(places, context.inputs, context.config, context.parallel_map, context.progress)
    write_json(context.out / FILE, result)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """All eigenvectors of each base weight's Gram, and products of the weight with every update's factors."""
    known = cost.module_shapes(shape)
    sizes = [known[t] for t in study.adapter.targets if t in known]
    once = sum(min(size) * math.prod(size) + EIGEN * min(size) ** 3 for size in sizes)
    each = sum(PRODUCTS * study.adapter.rank * math.prod(size) for size in sizes)
    return shape.layers * (once + len(step.spare_roles) * each) / cost.CPU_FLOPS


def read(folder: Path) -> dict[str, Any]:
    return {"spectra": json.loads((folder / FILE).read_text())}


KIND = StepKind(
    "spectra", version=2, plan=plan, run=run, settings=Settings, seconds=seconds, words="tasks over modules", read=read
)
