"""CKA between models, of the hidden states at every layer and of every adapted projection's output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from execution.context import Context
from execution.step import Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.config.values import Frozen
from orchestrator.planning import cost
from orchestrator.steps.serving import attention_in
from orchestrator.steps.train import ADAPTER, as_inputs

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from results.document import Measured

FILE = "similarity.json"


class Settings(Frozen):
    """CKA of hidden states and of the adapted projections' outputs, on prompts of the first evaluation task."""

    prompts: Annotated[int, Field(ge=8)] = 100
    position: Literal["last", "mean"] = "last"
    groups: Annotated[int, Field(ge=2)] = 10  # of the delete-a-group jackknife


def plan(planned: Planned) -> list[Step]:
    study, spec = planned.study, planned.study.analysis
    config = spec.similarity.model_dump() | {"threads": spec.threads, "attention": attention_in(study, "float32")}
    inputs = {"base": planned.first("base"), **as_inputs(planned), "problems": planned.first("problems")}
    return [Step(KIND, "cka", config | {"seed": spec.seed}, inputs, collective=ADAPTER)]


def run(context: Context) -> None:
    """Write ``similarity.json``: debiased CKA per pair and layer (interval, shuffled control), per pair and module."""
    from orchestrator.measurements.similarity import measure_similarity

    measure_similarity(context)


def parts(step: Step) -> int:
    return 1 + len(step.spare_roles)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Forward passes over prompts; comparing Grams is negligible."""
    tokens = step.config["prompts"] * cost.TOKENS_A_ROW * study.prompt.max_prompt_tokens
    return cost.measuring_seconds(shape, (1 + len(step.spare_roles)) * tokens)


def read(folder: Path) -> Measured:
    from orchestrator.results.read import read_part
    from results.document import Measured
    from results.function import Similarity

    return Measured(similarity=read_part(Similarity, folder / FILE))


KIND = StepKind(
    "similarity", version=2, plan=plan, run=run, settings=Settings, gpu="items", parts=parts, seconds=seconds,
    words="tasks over models and pairs", read=read,
)  # fmt: skip
