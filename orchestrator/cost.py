"""What a study asks of a machine, estimated from its settings alone: parameters, memory, GPU-hours.

An estimate for planning, with its assumptions named; measured figures are in ``provenance.json`` after a run.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.plan import cells
from orchestrator.study import Shape, Study

SUSTAINED_FLOPS = 4e14 * 0.4  # a data-centre GPU's bf16 peak of about 4e14 to 1e15, at 40 % of the lower end
TOKENS_A_ROW = 0.5  # mean length of prompt and answer, as a share of what the limits allow
BYTES = {"float32": 4, "bfloat16": 2}
# Activations kept a token and layer, in multiples of the hidden size: with checkpointing one input a layer.
KEPT, KEPT_CHECKPOINTED = 34, 2


@dataclass(frozen=True)
class Cost:
    """Sizes in counts, memory in GiB, time in GPU-hours."""

    parameters: int
    modules: int
    adapter_parameters: int
    training_gib: float
    trainings: int
    training_gpu_hours: float
    evaluation_gpu_hours: float


def parameters(shape: Shape) -> int:
    """Weights of a Qwen3 or Llama of this shape with tied embeddings; norms left out."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = 2 * shape.hidden * q + 2 * shape.hidden * kv + 3 * shape.hidden * shape.intermediate
    return shape.layers * layer + (shape.vocabulary or 0) * shape.hidden


def module_shapes(shape: Shape) -> dict[str, tuple[int, int]]:
    """out x in of the projections of attention and MLP."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    hidden = shape.hidden
    return {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q),
            "gate_proj": (shape.intermediate, hidden), "up_proj": (shape.intermediate, hidden),
            "down_proj": (hidden, shape.intermediate)}  # fmt: skip


def estimate(study: Study) -> Cost | None:
    """The study's cost; None where its base has no ``shape`` to reckon with."""
    shape = study.base.shape
    if shape is None:
        return None
    weights = parameters(shape)
    known = module_shapes(shape)
    adapted = [known[t] for t in study.adapter.targets if t in known]
    adapter = shape.layers * sum(study.adapter.rank * (out + in_) for out, in_ in adapted)
    training = study.training
    tokens_a_row = TOKENS_A_ROW * (study.prompt.max_prompt_tokens + study.prompt.max_answer_tokens)
    longest = study.prompt.max_prompt_tokens + study.prompt.max_answer_tokens
    kept = KEPT_CHECKPOINTED if training.gradient_checkpointing else KEPT
    rows = training.micro_batch * (2 if "dpo" in study.methods else 1)
    activations = rows * longest * shape.hidden * (shape.layers * kept + KEPT) * BYTES[training.precision]
    memory = weights * BYTES[training.precision] + adapter * 16 + activations
    # Forward 2, backward through frozen weights 2, and 2 more where activations are made again: per weight, token.
    flops_a_token = weights * (6 if training.gradient_checkpointing else 4)
    total = 0.0
    for cell in cells(study):
        units = training.last_step * training.batch_size * (2 if cell.method == "dpo" else 1)
        total += units * tokens_a_row * flops_a_token
    problems = sum(t.draw or {"gsm8k": 1319, "aime": 30}.get(t.task, 200) for t in study.evaluation.tasks)
    answered = (1 + len(cells(study))) * problems * study.evaluation.max_tokens * TOKENS_A_ROW
    return Cost(
        parameters=weights,
        modules=shape.layers * len(adapted),
        adapter_parameters=adapter,
        training_gib=memory / 2**30,
        trainings=len(cells(study)),
        training_gpu_hours=total / SUSTAINED_FLOPS / 3600,
        # A served token costs two operations a weight, at a twentieth of what training sustains: memory-bound.
        evaluation_gpu_hours=answered * 2 * weights / (SUSTAINED_FLOPS / 20) / 3600,
    )
