"""Updates against the base weights: shares in their top singular directions, and intruder dimensions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from results.document import Measured

FILE = "spectra.json"
EIGEN = 10  # times n^3 operations for all eigenvectors of an n x n matrix, about
PRODUCTS = 12  # products of a base weight with a vector per rank of an update, about


class Settings(Frozen):
    """Updates against the base weights' ``top`` singular directions; 0 leaves it out.

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
    """Write ``spectra.json``: shares, relative norms and intruder dimensions of every adapter."""
    from orchestrator.measurements.geometry import Place
    from orchestrator.measurements.spectra import survey

    places = {name: Place(f"{ADAPTER}{name}", "adapter") for name in adapters(context.inputs)}
    if not places:
        raise ValueError("no adapter was trained: there is no update to measure")
    result = survey(places, context.inputs, context.config, context.parallel_map, context.progress)
    write_json(context.out / FILE, result)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """All eigenvectors of each base weight's Gram, and products of the weight with every update's factors."""
    known = cost.module_shapes(shape)
    sizes = [known[t] for t in study.adapter.targets if t in known]
    once = sum(min(size) * math.prod(size) + EIGEN * min(size) ** 3 for size in sizes)
    each = sum(PRODUCTS * study.adapter.rank * math.prod(size) for size in sizes)
    return shape.layers * (once + len(step.spare_roles) * each) / cost.CPU_FLOPS


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.weights import Spectra

    return Measured(spectra=read_part(Spectra, folder / FILE))


KIND = StepKind(
    "spectra", version=2, plan=plan, run=run, settings=Settings, seconds=seconds, words="tasks over modules", read=read
)
