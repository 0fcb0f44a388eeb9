"""CKA between models, of the hidden states at every layer and of every adapted projection's output."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from execution.context import Context
from execution.step import Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.config.values import Frozen
from orchestrator.planning.kept_pairs import kept_pairs
from orchestrator.steps.features import FEATURES
from orchestrator.steps.train import BASE

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from results.document import Measured

FILE, TO_BASE = "similarity.json", "to_base.json"
SECONDS_A_LAYER, SECONDS_A_MODULE = 0.0006, 0.00003  # of a pair, on one core, at 100 prompts


class Settings(Frozen):
    """CKA of hidden states and of the adapted projections' outputs, on prompts of the first evaluation task."""

    prompts: Annotated[int, Field(ge=8)] = 100
    position: Literal["last", "mean"] = "last"
    groups: Annotated[int, Field(ge=2)] = 10  # of the delete-a-group jackknife


def plan(planned: Planned) -> list[Step]:
    """It needs the base's features, without which a pair of adapters says little, and some adapter's.

    Scaled copies of trainings are compared to base alone, in a step of their own.
    """
    spec = planned.study.analysis
    config = spec.similarity.model_dump(include={"position", "groups"}) | {"seed": spec.seed}
    kept = kept_pairs(planned.study)
    config |= {} if kept.beside is None else {"beside": kept.beside}
    features = {step.name: step for step in planned.of("features")}
    base, copies = features.pop(BASE), {step.name for step in planned.of("scale")}
    trained, scaled = (
        {BASE: base} | {f"{FEATURES}{name}": step for name, step in features.items() if (name in copies) == kind}
        for kind in (False, True)
    )
    steps = [Step(KIND, "cka", config, trained, collective=FEATURES)]
    return [*steps, Step(KIND, "scaled", {"to": BASE}, scaled, collective=FEATURES)] if copies else steps


def run(context: Context) -> None:
    """Write ``similarity.json``: debiased CKA per pair and layer (interval, shuffled control), per pair and module; of
    scaled copies ``to_base.json``: debiased CKA to base per copy and layer."""
    if "to" in context.config:
        from orchestrator.measurements.to_base import measure_to_base

        measure_to_base(context)
    else:
        from orchestrator.measurements.similarity import measure_similarity

        measure_similarity(context)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Every listed pair at every layer, with its interval and control, and at every module; to base a pair a copy is
    more than is done."""
    models = len(step.spare_roles)
    pairs = models if "to" in step.config else 2 * (1 + models) if "beside" in step.config else math.comb(1 + models, 2)
    modules = shape.layers * len(study.adapter.targets)
    return pairs * ((shape.layers + 1) * SECONDS_A_LAYER + modules * SECONDS_A_MODULE)


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.function import Similarity
    from results.scaled import CkaToBase

    if (folder / TO_BASE).exists():
        return Measured(scaled_cka=read_part(list[CkaToBase], folder / TO_BASE))
    return Measured(similarity=read_part(Similarity, folder / FILE))


KIND = StepKind(
    "similarity", version=3, plan=plan, run=run, settings=Settings, seconds=seconds,
    words="tasks over layers and modules", read=read,
)  # fmt: skip
