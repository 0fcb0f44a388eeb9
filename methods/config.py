"""The settings of a training: each one's type, bounds, default and meaning, here alone.

Light, so that a plan can be made without torch. A study's YAML has :class:`TrainingSettings` as ``training`` and
:class:`LoraSettings` as ``adapter``; a training gets both, and what is its own, as :class:`TrainConfig`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from execution.settings import Below1, Count, Every, Neutral, NotNegative, Positive, Settings, Unkeyed
from methods import check
from methods.data.view import Examples, PairRule
from methods.objectives.method import Setting

Start = Literal["a", "b"]
HANDED_ON = "state"  # folder of the state among the outputs of a training with keep_state


@dataclass(frozen=True, kw_only=True)
class LoraSettings(Settings):
    """LoRA as every method gets it."""

    rank: Count = 32
    alpha: Count = 64
    dropout: Below1 = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")  # names of modules, or their endings
    start: Neutral[Start] = "a"  # the factor that is drawn at random; the other one starts at zero

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.targets:
            raise ValueError("targets: name at least one module to adapt")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """The same for all methods. Adapter and optimiser state are float32 always."""

    backend: Literal["native", "trl"] = "native"  # trl: SFT, DFT and DPO through TRL's own trainers
    learning_rate: Positive = 5e-6
    steps: Count = 1500  # the horizon of the schedule
    report_step: Count | None = None  # the step whose adapter counts; None: the last that is trained
    run_steps: Count | None = None  # how far it trains; None: to the horizon
    checkpoint_every: Every = 0  # steps between two adapters that are kept; 0: none
    resume_every: Unkeyed[Every] = 100  # steps between two saved states; 0: none by steps
    resume_seconds: Unkeyed[NotNegative] = 30.0  # and the most time between two; 0: none by the clock
    examples: Neutral[Examples] = "all"  # paired: of its rows a method sees those in DPO's pairs alone
    batch_size: Count = 32  # units (rows, or pairs) an optimiser step, over all workers
    micro_batch: Count = 32  # units a forward pass
    warmup: Below1 = 0.05  # share of the steps
    weight_decay: NotNegative = 0.01
    clip: Positive = 1.0  # norm of the gradient
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    eps: Positive = 1e-8
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the base's weights
    attention: Literal["sdpa", "eager", "flash"] = "sdpa"
    gradient_checkpointing: bool = False  # each layer's activations are computed again in the backward pass
    head_chunk: Count = 1024  # positions whose logits exist at once, where the whole batch's would be too many
    threads: Count = 1
    workers: Count = 1  # data-parallel; each holds the whole base
    shard_base: Unkeyed[bool] = False  # each of several workers holds a part of the base's layers instead (FSDP2)
    micro_tokens: Count | None = None  # padded tokens a forward pass, in place of micro_batch units
    probe_every: Every = 0  # steps between two looks at held-out rollouts; 0: none
    probe_rows: Count = 64  # how many of them

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend == "trl" and (self.workers > 1 or self.micro_tokens):
            raise ValueError("backend: trl takes one worker and micro_batch: leave workers and micro_tokens")
        if self.backend == "trl" and self.batch_size % min(self.batch_size, self.micro_batch):
            raise ValueError(
                f"backend: trl needs a batch_size that is a multiple of micro_batch, not {self.batch_size} of "
                f"{self.micro_batch}"
            )
        if self.workers > self.batch_size:
            raise ValueError(f"workers: {self.workers} cannot share a batch of {self.batch_size}")
        if self.shard_base and (self.workers == 1 or self.micro_tokens or self.batch_size % self.workers):
            raise ValueError(  # layers are gathered by all workers at once, so all need as many forward passes
                "shard_base: needs several workers, a batch_size that they share evenly, and micro_batch in place of "
                f"micro_tokens; it has {self.workers} for {self.batch_size}"
            )
        if self.attention == "flash" and self.precision != "bfloat16":
            raise ValueError("attention: flash needs training.precision=bfloat16")
        if not self.reported_step <= self.last_step <= self.steps:
            raise ValueError(
                f"report_step <= run_steps <= steps must hold, not {self.reported_step} <= {self.last_step} <= "
                f"{self.steps}"
            )

    @property
    def last_step(self) -> int:
        """The step with which it ends."""
        return self.run_steps or self.steps

    @property
    def reported_step(self) -> int:
        """The step whose adapter counts."""
        return self.report_step or self.last_step

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


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingSettings, LoraSettings):
    """All that decides one training, besides the model and the rollouts. Bad values raise ``ValueError``.

    ``base_name`` and ``base_revision`` go into the adapter's own config as where its base is found, a folder or a hub
    name and its commit. ``keep_state``: the training is the first part of a longer one, and its last state is kept
    with its outputs, in ``state/``, for that one to go on from.
    """

    method: str
    settings: dict[str, Setting] = field(default_factory=dict)
    init_seed: int
    order_seed: int
    pair_rule: PairRule = "one"
    pairs: Count | None = None  # at most so many (chosen, rejected) pairs
    base_name: Unkeyed[str]
    base_revision: Unkeyed[str | None] = None
    keep_state: Neutral[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_state and self.backend == "trl":
            raise ValueError("keep_state: trl keeps no state that a longer training can go on from")
        object.__setattr__(self, "settings", check(self.method, self.settings))
