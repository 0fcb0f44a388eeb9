"""A model's features on the prompts that models are compared on: all that CKA needs of it.

A step a model: a further training is passed through alone. It is apart from the model's losses, which read other rows
and other settings. Each loads the base; that is .1 s for a small one, and little beside the losses of a large one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from execution.context import Context
from execution.step import Step, StepKind
from orchestrator.bases.base import Shape
from orchestrator.planning import cost
from orchestrator.runtime.serving import attention_in
from orchestrator.steps.train import each_model

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

FILE = "grams.safetensors"
FEATURES = "features:"  # role prefix of these steps among the inputs of a comparison


def plan(planned: Planned) -> list[Step]:
    study, spec = planned.study, planned.study.analysis
    config = spec.similarity.model_dump(include={"prompts", "position"})
    # An adapter has the same modules as all others, and base has none of its own: the study's targets name them.
    config |= {"targets": list(study.adapter.targets)}
    config |= {"threads": spec.threads, "attention": attention_in(study, "float32")}
    common = {"base": planned.first("base"), "problems": planned.first("problems")}
    return [Step(KIND, model, config, inputs) for model, inputs in each_model(planned, common).items()]


def run(context: Context) -> None:
    """Write ``grams.safetensors``: an n x n float64 Gram of n prompts for every layer and every adapted module."""
    from orchestrator.measurements.features import measure_features

    measure_features(context)


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """A forward pass over the prompts."""
    tokens = step.config["prompts"] * cost.TOKENS_A_ROW * study.prompt.max_prompt_tokens
    return cost.measuring_seconds(shape, tokens)


KIND = StepKind("features", version=1, plan=plan, run=run, gpu="task", seconds=seconds)
