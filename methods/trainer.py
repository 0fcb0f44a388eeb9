"""The one training substrate: same rows, order, start, optimiser and precision for every objective.

Only the objective and its view of the rollouts differ from method to method.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from methods import METHODS, state
from methods.batch import Batch, Rollout
from methods.config import TrainConfig
from methods.logprobs import check_rows, completion_logps, load_model, use_threads
from methods.lora import Adapter, attach
from methods.record import Record, drift_values, step_values, units_at
from methods.seeds import derive
from methods.view import Unit, group_means, order, view

__all__ = ["TrainConfig", "TrainingDiverged", "train"]


class TrainingDiverged(RuntimeError):
    """A loss or gradient is not finite. ``step`` (from 1) is the one that failed, ``rows`` are its rows."""

    def __init__(self, method: str, what: str, step: int, rows: Sequence[int]) -> None:
        named = ", ".join(map(str, rows[:10])) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")
        super().__init__(f"{method}: {what} at step {step} on rows {named}; lower the learning rate")
        self.method, self.what, self.step, self.rows = method, what, step, list(rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.method, self.what, self.step, self.rows)


def train(
    config: TrainConfig,
    model_dir: Path,
    rollouts: Sequence[Rollout],
    out: Path,
    *,
    reference: Sequence[float] | None = None,
    work: Path,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one adapter on the model in ``model_dir`` and write it to ``out``; returns the summary.

    ``reference`` holds the base's summed log-probability of each rollout
    (:func:`methods.logprobs.reference_logprobs`), which DPO needs for the rows of its pairs. ``out`` receives
    ``adapter/``, ``checkpoints/``, ``log.jsonl`` and ``training.json`` when the training ends. Until then
    they, and the state to go on from, live in ``work``: called again with the same arguments after a kill,
    training goes on from there and ends with the same bytes. ``on_step`` sees each log line. Raises
    ``ValueError`` on bad input and :class:`TrainingDiverged`, after which ``out`` holds the log and the
    adapter as it stood before the step that failed.
    """
    units, stream = plan(config, rollouts)
    check_reference(config.method, reference, units)
    result = work / "result"
    with use_threads(config.threads):
        model = load_model(model_dir, config.precision, config.attention, device)
        check_rows(model, rollouts, sorted({row for unit in units for row in unit}))
        adapter = attach(model, config.targets, config.rank, config.alpha, config.dropout, config.init_seed)
        set_modes(model, config.gradient_checkpointing)
        substrate = Substrate(config, rollouts, group_means(rollouts), reference, adapter, device)
        who = state.identity(config, rollouts, reference)
        done = state.load(work, adapter.parameters, substrate.optimizer, who)
        record = Record(result, config, adapter, on_step, done)
        try:
            for step in range(done + 1, config.run_steps + 1):
                record.step(substrate.step(step, units_at(config, stream, step)))
                if config.resume_every and step % config.resume_every == 0:
                    state.save(work, step, adapter.parameters, substrate.optimizer, who)
            summary = record.finish(rollouts, units, stream)
        except TrainingDiverged as error:
            record.keep(error.step - 1)
            shutil.copytree(result, out, dirs_exist_ok=True)
            raise
        finally:
            record.close()
    shutil.copytree(result, out, dirs_exist_ok=True)
    return summary


def plan(config: TrainConfig, rollouts: Sequence[Rollout]) -> tuple[list[Unit], list[Unit]]:
    """The method's view of the rollouts, and all units of the training in the order they are trained on."""
    units = view(config.method, rollouts, config.pair_rule, config.pairs)
    needed = config.run_steps * config.batch_size
    return units, order(len(rollouts), units, needed, config.order_seed)


def check_reference(method: str, reference: Sequence[float] | None, units: Sequence[Unit]) -> None:
    """``ValueError`` where the method needs reference log-probabilities that are not there."""
    if not METHODS[method].reference:
        return
    if reference is None:
        raise ValueError(f"{method}: needs reference log-probabilities; make them with reference_logprobs")
    for row in sorted({row for unit in units for row in unit}):
        if row >= len(reference) or not math.isfinite(reference[row]):
            raise ValueError(f"{method}: no finite reference log-probability for row {row}")


def set_modes(model: PreTrainedModel, gradient_checkpointing: bool) -> None:
    """Eval mode, so that none of the base's dropout acts, but where LoRA or checkpointing needs more."""
    model.eval()
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for name, module in model.named_modules():
        # The flag of a decoder layer alone, not of its parts, is what switches its checkpointing on.
        if isinstance(module, GradientCheckpointingLayer) or ".lora_dropout" in name:
            module.training = True


@dataclass
class Substrate:
    """Adapter, optimiser and data of one training; :meth:`step` does one optimiser step."""

    config: TrainConfig
    rollouts: Sequence[Rollout]
    means: Sequence[float]
    reference: Sequence[float] | None
    adapter: Adapter
    device: str

    def __post_init__(self) -> None:
        c = self.config
        self.method = METHODS[c.method]
        self.parameters: list[nn.Parameter] = list(self.adapter.parameters.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=c.learning_rate,
            betas=c.betas,
            eps=c.eps,
            weight_decay=c.weight_decay,
            fused=True,
        )

    def step(self, step: int, units: Sequence[Unit]) -> dict[str, Any]:
        """Forward, backward, clip, update on ``units``; the log line. Nothing is updated if not finite."""
        config = self.config
        self.optimizer.zero_grad(set_to_none=True)
        with dropout_stream(config, step):
            sums, unit_losses = self.accumulate(units)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        names = list(sums)
        *values, grad_norm = torch.stack([*sums.values(), norm.double()]).tolist()
        totals = dict(zip(names, values, strict=True))
        loss = totals.pop("loss") / self.count(units)
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {grad_norm}"
            raise TrainingDiverged(config.method, what, step, failing_rows(units, unit_losses))
        nn.utils.clip_grads_with_norm_(self.parameters, config.clip, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(step)
        self.optimizer.step()
        line = step_values(config, step, loss, grad_norm) | drift_values(self.adapter)
        if not all(math.isfinite(value) for value in line.values()):
            raise TrainingDiverged(config.method, "adapter is not finite", step, failing_rows(units, unit_losses))
        return line | self.means_of(totals, units)

    def accumulate(self, units: Sequence[Unit]) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients added up over micro-batches; sums of values to log (float64), each unit's loss."""
        count = self.count(units)
        sums: dict[str, Tensor] = {}
        unit_losses = []
        for first in range(0, len(units), self.config.micro_batch):
            batch = self.batch(units[first : first + self.config.micro_batch])
            losses = self.method.losses(batch, **self.config.settings)
            (losses.sum() / count).backward()
            losses = losses.detach().double()
            unit_losses.append(losses.sum(dim=1) if losses.dim() == 2 else losses)
            for name, value in self.logged(batch, unit_losses[-1]).items():
                sums[name] = sums[name] + value if name in sums else value
        return sums, torch.cat(unit_losses)

    def logged(self, batch: Batch, unit_losses: Tensor) -> dict[str, Tensor]:
        nll = batch.nll.detach().double().sum(dim=1)
        reward = batch.reward.double()
        sums = {
            "loss": unit_losses.sum(),
            "nll_right": (nll * reward).sum(),
            "nll_wrong": (nll * (1 - reward)).sum(),
        }
        if self.method.metrics is not None:
            metrics = self.method.metrics(batch, **self.config.settings)
            sums |= {name: value.double().sum() for name, value in metrics.items()}
        return sums

    def means_of(self, totals: dict[str, float], units: Sequence[Unit]) -> dict[str, float | None]:
        """Nats a token on right and on wrong rows (None where the step has no such row), metrics a unit."""
        counts = dict.fromkeys(totals, len(units))
        counts |= {"nll_right": self.tokens(units, 1), "nll_wrong": self.tokens(units, 0)}
        return {name: total / counts[name] if counts[name] else None for name, total in totals.items()}

    def tokens(self, units: Sequence[Unit], reward: int) -> int:
        rows = [self.rollouts[row] for unit in units for row in unit]
        return sum(len(rollout.completion_ids) for rollout in rows if rollout.reward == reward)

    def count(self, units: Sequence[Unit]) -> int:
        """What the sum of an optimiser step's losses is divided by: its completion tokens, or its pairs."""
        if self.method.unit == "pair":
            return len(units)
        return self.tokens(units, 0) + self.tokens(units, 1)

    def batch(self, units: Sequence[Unit]) -> Batch:
        """Forward pass of these units; rows of a pair stand next to each other, chosen first."""
        rows = [row for unit in units for row in unit]
        logp, mask = completion_logps(self.adapter.model, [self.rollouts[row] for row in rows], self.config.head_chunk)

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        reference = None
        if self.method.reference:
            assert self.reference is not None, "checked before training"
            reference = column([self.reference[row] for row in rows])
        return Batch(
            logp=logp,
            mask=mask,
            reward=column([self.rollouts[row].reward for row in rows]),
            group_mean=column([self.means[row] for row in rows]),
            reference=reference,
        )


@contextmanager
def dropout_stream(config: TrainConfig, step: int) -> Iterator[None]:
    """The step's own random stream for dropout, so that a resumed step draws what it would have drawn."""
    if config.dropout == 0:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(derive("dropout", config.order_seed, step))
        yield


def failing_rows(units: Sequence[Unit], unit_losses: Tensor) -> list[int]:
    """Rows of the units whose own loss is not finite; all rows where only their sum or gradient failed."""
    bad = [unit for unit, loss in zip(units, unit_losses.tolist(), strict=True) if not math.isfinite(loss)]
    return [row for unit in bad or units for row in unit]
