"""SFT, DFT and DPO through TRL's own trainers: a test oracle, a benchmark baseline, and a backend users can choose.

Rows, their order, initial adapter, optimiser, schedule, clipping and normalisation are those of
:mod:`methods.training.trainer`; forward pass, loss and loop are TRL's. SFT and DFT divide by the optimiser step's
completion tokens, DPO by its pairs, which requires ``batch_size`` to be a multiple of ``micro_batch``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PrinterCallback, Trainer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.data.view import Unit
from methods.training.determinism import deterministic
from methods.training.logprobs import check_logits, check_rows
from methods.training.lora import Adapter, adapter_of, lora_config
from methods.training.probe import evaluate_heldout, heldout_rows
from methods.training.record import Record, drift_values, step_values, units_at
from methods.training.trainer import Reference, TrainingDiverged, check_reference, plan
from methods.training.trl_losses import trl_loss
from models.base import load

UNTOLD = ("grad_floor", "noise", "path", "undone", "signal", "nll_right", "nll_wrong", "nll_pushed", "reward_nll",
          "gradient_wrong")  # fmt: skip


def train(
    config: TrainConfig,
    model_dir: Path,
    rollouts: Sequence[Rollout],
    out: Path,
    *,
    reference: Reference | None = None,
    heldout: Sequence[Rollout] = (),
    work: Path,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    on_save: Callable[[], None] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """As :func:`methods.training.trainer.train`, through TRL; ``ValueError`` for a method that TRL lacks.

    A killed training starts over and ``on_save`` is never called: TRL's checkpoints are pickles, which this project
    does not read. Values that TRL does not report (:data:`UNTOLD`) are None in the log. Dropout masks are TRL's.
    """
    trl_loss(config.method, config.settings)  # before anything is loaded
    if config.batch_size % micro_batch(config):
        raise ValueError(f"TRL: batch_size {config.batch_size} is not a multiple of micro_batch {config.micro_batch}")
    units, stream = plan(config, rollouts)
    check_reference(config, reference, rollouts, units)
    with deterministic(config.threads), global_generators_kept():
        model = load(model_dir, config.precision, config.attention, device)
        check_rows(model, rollouts, sorted({row for unit in units for row in unit}))
        check_logits(model, rollouts[units[0][0]])
        trainer = build(config, model, model_dir, rollouts, reference, stream, work / "trl", device)
        adapter = adapter_of(cast(PeftModel, trainer.model), config.init_seed, config.start)
        heldout = heldout_rows(config, adapter.model, heldout)
        record = Record(out, config, adapter, on_step)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Follow(config, stream, record, adapter, heldout))
        try:
            trainer.train()
            return record.finish(rollouts, units, stream)
        except TrainingDiverged as error:
            record.keep(error.step - 1)
            raise
        finally:
            record.close()


def build(
    config: TrainConfig,
    model: PreTrainedModel,
    model_dir: Path,
    rollouts: Sequence[Rollout],
    reference: Reference | None,
    stream: Sequence[Unit],
    folder: Path,
    device: str,
) -> Trainer:
    """TRL's trainer over the units of ``stream``, in that order; ``ValueError`` for a loss that TRL lacks."""
    loss = trl_loss(config.method, config.settings)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    peft_config = lora_config(model, config.targets, config.rank, config.alpha, config.dropout)
    settings = arguments(config, folder, device)
    if config.method == "dpo":
        assert reference is not None, "checked before"
        preference = DPOConfig(
            loss_type=[loss], beta=float(config.settings["beta"]),
            disable_dropout=False,  # True would disable the adapter's too; the base is loaded without dropout
            precompute_ref_log_probs=True, max_length=None, **settings,
        )  # fmt: skip
        return PreparedDPO(
            model=model, args=preference, train_dataset=pair_rows(rollouts, reference, stream),
            processing_class=tokenizer, peft_config=peft_config,
        )  # fmt: skip
    args = SFTConfig(
        loss_type=loss, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, **settings,
    )  # fmt: skip
    return SFTTrainer(
        model=model, args=args, train_dataset=single_rows(rollouts, stream),
        processing_class=tokenizer, peft_config=peft_config,
    )  # fmt: skip


def micro_batch(config: TrainConfig) -> int:
    """Units per forward pass, at most ``batch_size``."""
    return min(config.micro_batch, config.batch_size)


def arguments(config: TrainConfig, folder: Path, device: str) -> dict[str, Any]:
    """Settings common to both of TRL's configs."""
    return {
        "output_dir": str(folder),
        "max_steps": config.steps,
        "per_device_train_batch_size": micro_batch(config),
        "gradient_accumulation_steps": config.batch_size // micro_batch(config),
        "train_sampling_strategy": "sequential",
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.clip,
        "adam_beta1": config.betas[0],
        "adam_beta2": config.betas[1],
        "adam_epsilon": config.eps,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": config.gradient_checkpointing,
        "bf16": False,  # no autocast: the base has its own precision, the adapter is float32
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": device != "cpu",
    }


def single_rows(rollouts: Sequence[Rollout], stream: Sequence[Unit]) -> Dataset:
    """Columns of TRL's SFT collator; -100 masks the prompt."""
    rows = [rollouts[row] for (row,) in stream]
    return Dataset.from_dict(
        {
            "input_ids": [[*row.prompt_ids, *row.completion_ids] for row in rows],
            "labels": [[-100] * len(row.prompt_ids) + list(row.completion_ids) for row in rows],
        }
    )


def pair_rows(rollouts: Sequence[Rollout], reference: Reference, stream: Sequence[Unit]) -> Dataset:
    """Columns of TRL's preference collator, including the reference's summed log-probabilities."""
    sums = [float(values.sum(dtype=np.float64)) for values in reference]
    return Dataset.from_dict(
        {
            "prompt_ids": [list(rollouts[chosen].prompt_ids) for chosen, _ in stream],
            "chosen_ids": [list(rollouts[chosen].completion_ids) for chosen, _ in stream],
            "rejected_ids": [list(rollouts[rejected].completion_ids) for _, rejected in stream],
            "ref_chosen_logps": [sums[chosen] for chosen, _ in stream],
            "ref_rejected_logps": [sums[rejected] for _, rejected in stream],
        }
    )


class PreparedDPO(DPOTrainer):
    """TRL's DPO trainer on tokenised pairs with given reference log-probabilities."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


class Follow(TrainerCallback):
    """Records each step of a TRL training, stops it at ``run_steps``, raises :class:`TrainingDiverged`."""

    def __init__(
        self,
        config: TrainConfig,
        stream: Sequence[Unit],
        record: Record,
        adapter: Adapter,
        heldout: Sequence[Rollout],
    ) -> None:
        self.config, self.stream, self.record, self.adapter, self.heldout = config, stream, record, adapter, heldout

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        gradients = [p.grad for p in self.adapter.parameters.values() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients).item()
        if not math.isfinite(norm):
            step = state.global_step + 1
            rows = [row for unit in units_at(self.config, self.stream, step) for row in unit]
            raise TrainingDiverged(self.config.method, f"gradient norm is {norm}", step, rows)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= self.config.last_step:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:  # the summary that TRL logs after its last step
            return
        line = step_values(self.config, state.global_step, logs["loss"], logs["grad_norm"], None)
        line |= drift_values(self.adapter) | dict.fromkeys(UNTOLD)
        if self.config.method == "dpo":
            # TRL's margins are of sums, even where the loss uses means.
            reported = not self.config.settings["length_normalised"]
            line |= {"margin": logs["rewards/margins"] if reported else None}
            line |= {"reward_accuracy": logs["rewards/accuracies"] if reported else None}
        self.record.step(line | evaluate_heldout(self.config, self.adapter, state.global_step, self.heldout))


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Restore the state of the global random generators afterwards: TRL seeds all of them."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
