"""The models that a study's engines serve, each with its engine's settings: what of them cannot be served, and how a
plan describes the engines that span several GPUs.

vLLM splits a model's attention heads and the width of its MLP evenly over the GPUs of tensor parallelism. Heads of keys
and values are split too, or where there are fewer of them than GPUs, each is repeated on equally many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from evals.engines.settings import EngineSettings
from execution.errors import UserError
from execution.step import Step
from execution.store import Store
from methods import METHODS
from orchestrator.planning.cost import parameters
from orchestrator.planning.memory import BYTES
from orchestrator.planning.resolve import engine_kind

if TYPE_CHECKING:
    from orchestrator.bases.base import BaseSpec, Shape
    from orchestrator.config.study import Study

MOST = 64  # GPUs of one node that are proposed for tensor parallelism


class Served(NamedTuple):
    """A model and its engine. ``engine_at`` and ``model_at`` are the settings that name them."""

    engine_at: str
    model_at: str
    base: BaseSpec
    engine: EngineSettings

    def kind(self, study: Study) -> str:
        """``vllm`` or ``transformers``."""
        return engine_kind(study) if self.engine.kind == "auto" else self.engine.kind


def served_models(study: Study) -> list[Served]:
    """The study's base, and the models that its rollouts are sampled from."""
    return [Served("engine", "base", study.base, study.engine), *study.rollouts.served(study)]


def check_served(study: Study) -> None:
    """``UserError`` for limits that vLLM would report only when it is opened, possibly hours later."""
    for model in served_models(study):
        gpus = model.engine.tensor_parallel
        if model.kind(study) != "vllm":
            if gpus > 1:
                raise UserError(
                    f"{model.engine_at}.tensor_parallel: {gpus} GPUs need vLLM, which is not installed here: install "
                    f"it, or set {model.engine_at}.tensor_parallel=1"
                )
            continue
        longest = model.base.positions()
        if longest is not None and model.engine.max_model_len > longest:
            raise UserError(
                f"{model.engine_at}.max_model_len: {model.base.name} has {longest} positions, fewer than "
                f"{model.engine.max_model_len}: set {model.engine_at}.max_model_len={longest}, or less"
            )
        shape = model.base.known_shape()
        why = None if shape is None else undivided(shape, gpus)
        if shape is not None and why is not None:
            fitting = [str(n) for n in range(1, MOST + 1) if undivided(shape, n) is None]
            raise UserError(
                f"{model.engine_at}.tensor_parallel: {model.base.name} has {why}, which {gpus} GPUs cannot share "
                f"evenly: set {model.engine_at}.tensor_parallel={' or '.join(fitting)}"
            )


def undivided(shape: Shape, gpus: int) -> str | None:
    """What of a model vLLM cannot share out over so many GPUs; None where it can."""
    if shape.heads % gpus:
        return f"{shape.heads} attention heads"
    if shape.kv_heads % gpus and gpus % shape.kv_heads:
        return f"{shape.kv_heads} heads of keys and values"
    return f"an MLP of width {shape.intermediate}" if shape.intermediate % gpus else None


def check_gpus(study: Study, plan: Iterable[Step], store: Store, gpus: int, whose: str) -> None:
    """``UserError`` for a step to do whose engine spans more GPUs than the ``gpus`` of a node; ``whose`` they are."""
    teachers = study.rollouts.served(study)
    for step in plan:
        needed = step.config["engine"].get("tensor_parallel", 1) if step.runs_as == "engine" else 1
        if needed > max(1, gpus) and not store.done(step):
            name = (step.inputs.get("model") or step.inputs["base"]).config["name"]
            own = teachers if step.kind.name in ("rollouts", "sample") else []
            where = next((model.engine_at for model in own if model.base.name == name), "engine")
            raise UserError(
                f"{where}.tensor_parallel: {step.title} needs {needed} GPUs of one node, and {whose} {gpus}: lower "
                f"{where}.tensor_parallel, or give more GPUs"
            )


def engine_lines(study: Study) -> Iterator[str]:
    """A plan's lines about engines that span several GPUs, and what differs between several teachers and the base."""
    told: list[tuple[BaseSpec, EngineSettings]] = []
    for model in served_models(study):
        gpus, shape = model.engine.tensor_parallel, model.base.known_shape()
        if gpus > 1 and (model.base, model.engine) not in told:
            told.append((model.base, model.engine))
            weights = 0 if shape is None else parameters(shape) * BYTES[model.engine.precision] / 2**30
            size = f": {weights:.1f} GiB of weights, {weights / gpus:.1f} GiB on each" if weights else ""
            yield f"engine     {model.base.name} on {gpus} GPUs of one node (tensor parallelism){size}"
    own = study.base.vocabulary() if study.rollouts.teachers else None
    for teacher in study.rollouts.teachers:
        its = teacher.vocabulary()
        if own is not None and its is not None and own != its:
            yield (
                f"teacher    {teacher.name} has another vocabulary than the base: its completions are passed on as "
                "text, not as tokens"
            )
    rule, paired = study.rollouts.table.pair_rule, {"pairs"} & {METHODS[study.objective(m)].view for m in study.methods}
    if paired and rule != "same_teacher" and len(study.rollouts.served(study)) > 1:
        yield (
            f"pairs      by rule {rule} can be of two teachers, so their difference is partly one of style: "
            "rollouts.table.pair_rule=same_teacher forms them within each"
        )
