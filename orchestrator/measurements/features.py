"""One model's features on the prompts that models are compared on, as Grams in a file."""

from __future__ import annotations

from analysis.function.cka import gram
from analysis.function.forward import attached, features
from execution.context import Context
from models.base import load, targeted
from models.module_names import natural_key
from orchestrator.evaluation.problems import read_problems
from orchestrator.measurements.grams import write_grams
from orchestrator.measurements.losses import factors_of
from orchestrator.runtime.device import device
from orchestrator.steps.base import model_folder


def measure_features(context: Context) -> None:
    """Write ``grams.safetensors``: float64 n x n of n prompts, of each layer's hidden states and each module."""
    config = context.config
    problems = read_problems(context.inputs["problems"])[0]["problems"][: config["prompts"]]
    model = load(model_folder(context.inputs["base"]), "float32", config["attention"], device())
    modules = sorted(targeted(model, config["targets"]), key=natural_key)
    context.progress(f"{len(problems)} prompts")
    with attached(model, factors_of(context.inputs)):
        seen = features(model, [p["prompt_ids"] for p in problems], config["position"], modules)
    write_grams(
        context.out,
        {layer: gram(x) for layer, x in seen["hidden"].items()},
        {name: gram(x) for name, x in seen["modules"].items()},
    )
