"""The checked settings of one training; imports no torch, so that planning does not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from methods import check
from methods.method import Setting
from methods.view import PAIR_RULES

CHOICES = {
    "schedule": ("cosine",),
    "precision": ("float32", "bfloat16"),
    "attention": ("sdpa", "eager", "flash"),
    "pair_rule": PAIR_RULES,
}
LEAST = {
    "steps": 1, "report_step": 1, "run_steps": 1, "checkpoint_every": 0, "resume_every": 0, "batch_size": 1,
    "micro_batch": 1, "head_chunk": 1, "rank": 1, "threads": 1, "workers": 1,
    "probe_every": 0, "probe_rows": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines one training besides the model and the rollouts. Bad values raise ``ValueError``.

    ``steps`` is the horizon of the schedule, ``run_steps`` the last step that is run, ``report_step`` the step whose
    adapter is the result (``report_step`` <= ``run_steps`` <= ``steps``). ``batch_size`` counts units (rows, or pairs)
    per optimiser step over all ``workers``; ``micro_batch`` units per forward pass, or, where ``micro_tokens`` is
    given, as many as fit that budget of padded tokens. ``checkpoint_every`` is the number of steps between kept
    adapters, ``resume_every`` between saved resume states, ``resume_seconds`` the same in seconds
    (:class:`methods.state.Due`); 0 is never. ``warmup`` is a fraction of ``steps``. ``precision`` is that of the base
    weights; adapter and optimiser state are always float32. ``head_chunk`` is the number of positions whose logits are
    held at once where the whole batch's would be too many. ``targets`` are module names or their endings.
    ``base_name`` (a folder or hub name) and ``base_revision`` (a commit) are written to the adapter's config.
    ``probe_every`` is the number of steps between evaluations of the first ``probe_rows`` held-out rollouts
    (0: never). ``pairs`` is the largest number of (chosen, rejected) pairs to draw, None for all.
    """

    method: str
    learning_rate: float
    steps: int
    report_step: int
    run_steps: int
    batch_size: int
    micro_batch: int
    rank: int
    alpha: int
    init_seed: int
    order_seed: int
    base_name: str
    base_revision: str | None = None
    settings: dict[str, Setting] = field(default_factory=dict)
    checkpoint_every: int = 0
    resume_every: int = 0
    resume_seconds: float = 0.0
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: str = "cosine"
    precision: str = "float32"
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    head_chunk: int = 1024
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    pair_rule: str = "one"
    pairs: int | None = None
    threads: int = 1
    workers: int = 1
    micro_tokens: int | None = None
    probe_every: int = 0
    probe_rows: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", check(self.method, self.settings))
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "targets", tuple(self.targets))
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(options)}")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, not {getattr(self, name)}")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{item.name}: must be a finite number, not {value}")
        if self.micro_tokens is not None and self.micro_tokens < 1:
            raise ValueError(f"micro_tokens: must be at least 1, not {self.micro_tokens}")
        if self.workers > self.batch_size:
            raise ValueError(f"workers: {self.workers} cannot share a batch of {self.batch_size}")
        if not self.report_step <= self.run_steps <= self.steps:
            raise ValueError(
                f"report_step {self.report_step} <= run_steps {self.run_steps} <= steps {self.steps} fails"
            )
        if not 0 <= self.warmup < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"warmup {self.warmup} and dropout {self.dropout} must lie in [0, 1)")
        if min(self.learning_rate, self.clip, self.alpha, self.eps) <= 0:
            raise ValueError("learning_rate, clip, alpha and eps must be above 0")
        if min(self.weight_decay, self.resume_seconds) < 0:
            raise ValueError("weight_decay and resume_seconds must be at least 0")
        if not self.targets:
            raise ValueError("targets: name at least one module to adapt")

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up: ``warmup * steps`` rounded up as in Transformers, at most ``steps - 1``."""
        return min(math.ceil(self.warmup * self.steps), self.steps - 1)

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step ``step`` (from 1): linear warm-up from 0, then cosine decay to 0 at
        ``steps``.

        Transformers' "cosine" schedule; with a warm-up the first step has rate 0.
        """
        done = step - 1
        if done < self.warmup_steps:
            return self.learning_rate * done / self.warmup_steps
        progress = (done - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
