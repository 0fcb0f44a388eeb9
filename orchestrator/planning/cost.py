"""What a study asks of a machine, estimated from its settings alone: parameters, memory, GPU-hours, a step's seconds.

An estimate for planning, with its assumptions named; measured figures are in ``provenance.json`` after a run.
Counted is arithmetic; start-up, loading, downloads, tokenizing and grading are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from methods import METHODS
from orchestrator.planning.memory import Memory, training_memory
from orchestrator.planning.scaled_copies import scaled_copies
from orchestrator.planning.training_runs import training_runs

if TYPE_CHECKING:
    from execution.step import Step
    from orchestrator.bases.base import Shape
    from orchestrator.config.evaluation import Problems
    from orchestrator.config.study import Study
    from orchestrator.rollouts.row import Row

SUSTAINED_FLOPS = 4e14 * 0.4  # a data-centre GPU's bf16 peak of about 4e14 to 1e15, at 40 % of the lower end
SERVING_SHARE = 1 / 20  # of that, while an engine decodes: bound by memory
FLOAT32_SHARE = 1 / 8  # of that, in the float32 of the measurements
CPU_FLOPS = 5e10  # one core, float32
TOKENS_A_ROW = 0.5  # mean length of prompt and answer, as a share of what the limits allow
KNOWN_PROBLEMS = {
    ("gsm8k", "test"): 1319,
    ("gsm8k", "train"): 7473,
    ("aime", "test"): 30,
    ("deepscaler", "train"): 40315,
}
OTHER_PROBLEMS = 200  # of a task of unknown size without a draw


@dataclass(frozen=True)
class Cost:
    """Sizes in counts, a training's memory in GiB, time in GPU-hours."""

    parameters: int
    modules: int
    adapter_parameters: int
    memory: Memory
    trainings: int
    training_tokens: float
    training_gpu_hours: float
    evaluation_gpu_hours: float

    @property
    def training_gib(self) -> float:
        """Memory of a training on its GPU."""
        return self.memory.device


def parameters(shape: Shape) -> int:
    """Weights of a Qwen3 or Llama of this shape with tied embeddings; norms left out."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = 2 * shape.hidden * q + 2 * shape.hidden * kv + 3 * shape.hidden * shape.intermediate
    return shape.layers * layer + (shape.vocabulary or 0) * shape.hidden


def weights_held(study: Study, shape: Shape) -> float:
    """Of these, what one worker of a training holds at once: all, or with ``shard_base`` its part of the layers, the
    embeddings, and two layers that are gathered (one in use and the next).
    """
    if not study.training.shard_base:
        return parameters(shape)
    outside = (shape.vocabulary or 0) * shape.hidden
    layers = parameters(shape) - outside
    return outside + layers / study.training.workers + min(2, shape.layers) * layers / shape.layers


def module_shapes(shape: Shape) -> dict[str, tuple[int, int]]:
    """out x in of the projections of attention and MLP."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    hidden = shape.hidden
    return {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q),
            "gate_proj": (shape.intermediate, hidden), "up_proj": (shape.intermediate, hidden),
            "down_proj": (hidden, shape.intermediate)}  # fmt: skip


def layer_modules(shape: Shape) -> dict[str, tuple[int, int]]:
    """out x in of all projections inside the layers of a Qwen3 or Llama of this shape, by their names in the model."""
    return {
        f"model.layers.{i}.{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}": sides
        for i in range(shape.layers)
        for name, sides in module_shapes(shape).items()
    }


def estimate(study: Study) -> Cost | None:
    """The study's cost; None where its base has no ``shape`` to reckon with."""
    shape = study.base.shape
    if shape is None:
        return None
    weights = parameters(shape)
    known = module_shapes(shape)
    adapted = [known[t] for t in study.adapter.targets if t in known]
    adapter = shape.layers * sum(study.adapter.rank * (out + in_) for out, in_ in adapted)
    trainings = training_runs(study)
    models = 1 + len(trainings) + len(scaled_copies(study, trainings))
    return Cost(
        parameters=weights,
        modules=shape.layers * len(adapted),
        adapter_parameters=adapter,
        memory=training_memory(study, shape, weights_held(study, shape), adapter),
        trainings=len(trainings),
        training_tokens=sum(training_tokens(study, run.objective, asdict(run.training)) for run in trainings),
        training_gpu_hours=sum(training_seconds(study, shape, run.objective, asdict(run.training)) for run in trainings)
        / 3600,
        evaluation_gpu_hours=models * evaluation_seconds(study, shape) / 3600,
    )


def units(study: Study, rows: Sequence[Row], name: str) -> int | None:
    """Units of the training rows that the study's method of this name sees; None where only its steps would tell.

    ``rows`` are the study's rollouts where they are at hand. Of these those that are longer than the limits count too:
    which they are is known once they are tokens. Else the table's own limits tell, where there are any.
    """
    from methods.data.batch import Rollout
    from methods.data.view import view
    from orchestrator.rollouts.dataset import distinct, freeze, joined

    table, objective = study.rollouts.table, study.objective(name)
    kind = METHODS[objective].view
    if not rows or (kind != "all" and any(row.reward is None for row in rows)):
        return {"all": table.rows, "pairs": table.pairs, "right": None}[kind]
    kept = [{**asdict(row), "reward": row.reward or 0.0, "prompt_ids": [0]} for row in rows if row.completion.strip()]
    together, _ = joined([{**row, "completion_ids": list(row["completion"].encode())} for row in kept])
    together = distinct(together) if table.duplicates == "drop" else together
    frozen = [row for row in freeze(together, table.model_dump()) if row["split"] == "train"]
    rollouts = [Rollout([0], r["completion_ids"], r["reward"], r["group"], r["teacher"]) for r in frozen]
    try:
        settings, examples = study.settings_of(name), study.training.examples
        return len(view(objective, rollouts, table.pair_rule, table.pairs, settings, examples))
    except ValueError:  # nothing to train on among these
        return None


def durations(study: Study, steps: Sequence[Step]) -> dict[str, float] | None:
    """Each step's seconds by title, placed as the study says; None where the base has no ``shape`` to reckon with.

    A training holds ``placement.gpus_per_training`` of a GPU with each of its workers, and its time times what it
    holds is its GPU-seconds however it is placed: half a GPU takes twice as long. A step that shares its items out is
    given as on one GPU. What is read or downloaded takes no time, and neither does sampling from a teacher that has no
    ``shape``.
    """
    shape = study.base.shape
    return None if shape is None else {step.title: step.kind.seconds(study, shape, step) for step in steps}


def rows_a_unit(method: str) -> int:
    """Rows in one unit of a method's batch: a pair is two."""
    return 2 if METHODS[method].view == "pairs" else 1


def training_seconds(study: Study, shape: Shape, method: str, settings: Mapping[str, Any]) -> float:
    """GPU-seconds of one training with these ``settings``, a training's."""
    # Forward 2, backward through frozen weights 2, and 2 more where activations are made again: per weight, token.
    flops = parameters(shape) * (6 if settings["gradient_checkpointing"] else 4)
    return training_tokens(study, method, settings) * flops / SUSTAINED_FLOPS


def training_tokens(study: Study, method: str, settings: Mapping[str, Any]) -> float:
    """Tokens of prompts and answers that one training sees, with repeats."""
    rows = (settings["run_steps"] or settings["steps"]) * settings["batch_size"] * rows_a_unit(method)
    return rows * row_tokens(study)


def row_tokens(study: Study) -> float:
    """Tokens of a row, prompt and answer."""
    return TOKENS_A_ROW * (study.prompt.max_prompt_tokens + study.prompt.max_answer_tokens)


def problem_count(spec: Problems) -> int:
    return spec.draw or KNOWN_PROBLEMS.get((spec.task, spec.split), OTHER_PROBLEMS)


def served_seconds(shape: Shape, tokens: float) -> float:
    """Seconds in which an engine on one GPU answers with so many tokens: two operations a weight; prompts left out."""
    return tokens * 2 * parameters(shape) / (SUSTAINED_FLOPS * SERVING_SHARE)


def measuring_seconds(shape: Shape, tokens: float) -> float:
    """Seconds of one GPU for so many tokens' forward passes in the measurements' float32."""
    return tokens * 2 * parameters(shape) / (SUSTAINED_FLOPS * FLOAT32_SHARE)


def evaluation_seconds(study: Study, shape: Shape) -> float:
    """GPU-seconds of one model's evaluation."""
    tokens = 0
    for task in study.evaluation.tasks:
        drawn = study.evaluation.sampling(task)
        tokens += problem_count(task) * drawn["samples"] * drawn["max_tokens"]
    return served_seconds(shape, tokens * TOKENS_A_ROW)
