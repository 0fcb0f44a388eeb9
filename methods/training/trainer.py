"""The training loop: same rows, order, initial adapter, optimiser and precision for every objective, so that methods
differ only in the objective and its view of the rollouts.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from methods import METHODS
from methods.config import HANDED_ON, TrainConfig
from methods.data.batch import Batch, Rollout
from methods.data.divisor import divisor
from methods.data.split import divisible, micro_batches, share
from methods.data.view import Unit, group_means, order, view
from methods.seeds import derive
from methods.training import state
from methods.training.determinism import deterministic, in_order
from methods.training.logprobs import beside, check_logits, check_rows
from methods.training.lora import Adapter, attach
from methods.training.motion import Motion, clipped
from methods.training.noise import floor, token_gradient
from methods.training.parallel import STOP, Group, Stopped, group, load_sharded
from methods.training.probe import evaluate_heldout, heldout_rows
from methods.training.record import Record, drift_values, step_values, units_at
from models.base import load
from models.logprobs import completion_logps

__all__ = ["TrainConfig", "TrainingDiverged", "assist", "train"]

Reference = Sequence[np.ndarray]  # each rollout's token log-probabilities under the base, nats; empty if not computed


class TrainingDiverged(RuntimeError):
    """A loss, gradient or adapter is not finite. ``step`` (from 1) is the step that failed, ``rows`` its rows."""

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
    reference: Reference | None = None,
    heldout: Sequence[Rollout] = (),
    work: Path,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    on_save: Callable[[], None] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one adapter on the model in ``model_dir`` and write it to ``out``; returns the summary.

    ``reference`` holds the base's log-probabilities of each rollout's tokens
    (:func:`methods.training.logprobs.reference_logprobs`), for the rows of methods that need them. ``heldout``
    rollouts are evaluated every ``config.probe_every`` steps (:func:`methods.training.probe.probe`), not trained on.
    ``out`` receives ``adapter/``, ``checkpoints/``, ``log.jsonl`` and ``training.json`` when the training ends; until
    then they and the resume state are in ``work``. Called again with the same arguments after a kill, training resumes
    from there and ends with the same bytes; so it does from the ``state/`` that a shorter training with
    ``config.keep_state`` left, put in place of ``work``. ``on_step`` receives each log line, ``on_save`` is called
    after each saved state. With more ``config.workers`` rank 0 calls this, the others :func:`assist`. ``ValueError`` on
    bad input; :class:`TrainingDiverged`, after which ``out`` holds the log and the adapter before that step.
    """
    workers = group(config.workers, device)
    result = work / state.RESULT
    with deterministic(config.threads, device):
        trainer, units, stream = prepared(config, model_dir, rollouts, reference, workers, device)
        adapter, optimizer = trainer.adapter, trainer.optimizer
        heldout = heldout_rows(config, adapter.model, heldout)
        who = state.identity(config, [*rollouts, *heldout], reference)
        done, memory, kept = state.load(work, result, adapter.parameters, optimizer, who)
        if memory:
            trainer.motion.power = memory.pop("power")
            trainer.fit = Fit(**memory)
        trainer.join(done)
        record = Record(result, config, adapter, on_step, kept)
        due = state.Due(config.resume_every, config.resume_seconds)

        def save(step: int) -> None:
            memory = asdict(trainer.fit) | {"power": trainer.motion.power}
            state.save(work, step, adapter.parameters, optimizer, who, memory, record.sync())

        try:
            for step in range(done + 1, config.last_step + 1):
                workers.tell(step)
                line = trainer.step(step, units_at(config, stream, step))
                record.step(line | evaluate_heldout(config, adapter, step, heldout))
                if due(step):
                    save(step)
                    if on_save is not None:
                        on_save()
                    due.saved()
            if config.keep_state:
                save(config.last_step)
                state.hand_on(work, out / HANDED_ON)
            summary = record.finish(rollouts, units, stream, trainer.fit.events)
        except TrainingDiverged as error:
            record.keep(error.step - 1)
            shutil.copytree(result, out, dirs_exist_ok=True)
            raise
        except (OSError, KeyboardInterrupt, torch.OutOfMemoryError) as error:  # on rank 0 alone: the others wait for it
            if config.shard_base and isinstance(error, torch.OutOfMemoryError):  # they wait in a pass: nothing is told
                raise RuntimeError("held-out rows do not fit: set training.probe_every=0") from None
            workers.tell(STOP)
            raise
        finally:
            record.close()
    shutil.copytree(result, out, dirs_exist_ok=True)
    return summary


def assist(
    config: TrainConfig,
    model_dir: Path,
    rollouts: Sequence[Rollout],
    *,
    reference: Reference | None = None,
    heldout: Sequence[Rollout] = (),
    device: str = "cpu",
) -> None:
    """The part of ranks above 0 in :func:`train`: compute their units of every step, write nothing.

    ``heldout`` is for ``config.shard_base`` alone: passes over it need every worker's part of the base. Returns when
    the training has ended, also when it failed: rank 0 reports the outcome.
    """
    workers = group(config.workers, device)
    with deterministic(config.threads, device), contextlib.suppress(Stopped, TrainingDiverged):
        trainer, _, stream = prepared(config, model_dir, rollouts, reference, workers, device)
        heldout = heldout_rows(config, trainer.adapter.model, heldout) if config.shard_base else ()
        for step in range(trainer.join(0) + 1, config.last_step + 1):
            workers.tell(step)
            trainer.step(step, units_at(config, stream, step))
            evaluate_heldout(config, trainer.adapter, step, heldout)


def prepared(
    config: TrainConfig,
    model_dir: Path,
    rollouts: Sequence[Rollout],
    reference: Reference | None,
    workers: Group,
    device: str,
) -> tuple[Trainer, list[Unit], list[Unit]]:
    """The :class:`Trainer` before the first step, the method's units, and all units in training order."""
    units, stream = plan(config, rollouts)
    check_reference(config, reference, rollouts, units)
    try:
        how = config.precision, config.attention
        model = load_sharded(model_dir, *how, workers) if config.shard_base else load(model_dir, *how, device)
    except torch.OutOfMemoryError:
        raise RuntimeError(
            f"the base does not fit one {device} device in {config.precision}: set training.precision=bfloat16, share "
            "it out with more training.workers and training.shard_base=true, or take a smaller base"
        ) from None
    check_rows(model, rollouts, sorted({row for unit in units for row in unit}))
    check_logits(model, rollouts[units[0][0]])
    adapter = attach(model, config.targets, config.rank, config.alpha, config.dropout, config.init_seed, config.start)
    set_modes(model, config.gradient_checkpointing)
    try:
        with dropout_stream(config, 0):
            norm = in_order(partial(token_gradient, adapter, rollouts[units[0][0]], config.head_chunk))
    except torch.OutOfMemoryError:
        raise RuntimeError(
            "one row does not fit into memory: set training.gradient_checkpointing=true, or lower "
            "prompt.max_prompt_tokens"
        ) from None
    means = group_means(rollouts)
    return Trainer(config, rollouts, means, reference, adapter, device, workers, norm), units, stream


def plan(config: TrainConfig, rollouts: Sequence[Rollout]) -> tuple[list[Unit], list[Unit]]:
    """The method's view of the rollouts, and all units of the training in training order."""
    units = view(config.method, rollouts, config.pair_rule, config.pairs, config.settings, config.examples)
    needed = config.last_step * config.batch_size
    return units, order(len(rollouts), units, needed, config.order_seed)


def check_reference(
    config: TrainConfig, reference: Reference | None, rollouts: Sequence[Rollout], units: Sequence[Unit]
) -> None:
    """``ValueError`` if the method needs reference log-probabilities that are missing or not finite."""
    method = config.method
    if not METHODS[method].needs_reference(config.settings):
        return
    if reference is None:
        raise ValueError(f"{method}: needs reference log-probabilities; make them with reference_logprobs")
    for row in sorted({row for unit in units for row in unit}):
        values = reference[row] if row < len(reference) else np.empty(0)
        if len(values) != len(rollouts[row].completion_ids) or not np.isfinite(values).all():
            raise ValueError(f"{method}: no finite reference log-probabilities for row {row}")


def set_modes(model: PreTrainedModel, gradient_checkpointing: bool) -> None:
    """Eval mode, except for LoRA dropout and layers with gradient checkpointing."""
    model.eval()
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for name, module in model.named_modules():
        # Checkpointing is active while a decoder layer's own training flag is set; its parts stay in eval mode.
        if isinstance(module, GradientCheckpointingLayer) or ".lora_dropout" in name:
            module.training = True


@dataclass
class Fit:
    """The limit of one forward pass in units or padded tokens, halved when memory runs out.

    ``events`` records each halving: the step, and the limit before and after.
    """

    limit: int
    events: list[dict[str, int]] = field(default_factory=list)

    def halve(self, step: int) -> None:
        self.events.append({"step": step, "from": self.limit, "to": self.limit // 2})
        self.limit //= 2


@dataclass
class Trainer:
    """Adapter, optimiser and data of one training; :meth:`step` does one optimiser step.

    ``token_norm`` is the norm of a token's gradient at the start (:func:`methods.training.noise.token_gradient`);
    with 0 the rounding floor is 0.
    """

    config: TrainConfig
    rollouts: Sequence[Rollout]
    means: Sequence[float]
    reference: Reference | None
    adapter: Adapter
    device: str
    workers: Group
    token_norm: float = 0.0

    def __post_init__(self) -> None:
        c = self.config
        self.fit = Fit(c.micro_tokens or c.micro_batch)
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
        self.motion = Motion(self.parameters, self.optimizer, c.betas[0])

    def join(self, done: int) -> int:
        """Broadcast rank 0's ``done`` steps, parameters and optimiser state; returns its ``done``."""
        done = self.workers.tell(done)
        self.fit.limit = self.workers.tell(self.fit.limit)
        state.spread(self.workers, done, self.adapter.parameters, self.optimizer)
        return done

    def step(self, step: int, units: Sequence[Unit]) -> dict[str, Any]:
        """One optimiser step on ``units``; returns its log line. :class:`TrainingDiverged` if anything is not finite.

        Decisions depend only on values that are the same on all workers, so all decide alike.
        """
        config = self.config
        sums, unit_losses = self.gradients(step, units)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        names = list(sums)
        *values, grad_norm = torch.stack([*sums.values(), norm.double()]).tolist()
        totals = dict(zip(names, values, strict=True))
        count = self.count(units)
        loss = totals.pop("loss") / count
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {grad_norm}"
            raise TrainingDiverged(config.method, what, step, failing_rows(units, unit_losses))
        nn.utils.clip_grads_with_norm_(self.parameters, config.clip, norm)
        for settings in self.optimizer.param_groups:
            settings["lr"] = config.rate(step)
        self.motion.begin()
        self.optimizer.step()
        least = floor(self.token_norm, totals["gradient"], count)
        line = step_values(config, step, loss, grad_norm, least) | drift_values(self.adapter)
        if not all(math.isfinite(value) for value in line.values()):
            raise TrainingDiverged(config.method, "adapter is not finite", step, failing_rows(units, unit_losses))
        motion = self.motion.end(step, clipped(grad_norm, config.clip), math.hypot(line["a_moved"], line["b_norm"]))
        return line | motion | self.means_of(totals, units)

    def gradients(self, step: int, units: Sequence[Unit]) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients of the step's units over all workers, retried with half the limit when memory runs out.

        Returns sums of values to log (float64) and each unit's loss, the same on all workers. ``RuntimeError`` if a
        single unit does not fit into memory.
        """
        tokens = self.config.micro_tokens is not None

        def compute() -> tuple[dict[str, Tensor], Tensor]:
            self.optimizer.zero_grad(set_to_none=True)
            with dropout_stream(self.config, step):
                return self.accumulate(share(units, self.workers.rank, self.workers.size), self.count(units))

        while True:
            computed = None
            with contextlib.suppress(torch.OutOfMemoryError):
                computed = in_order(compute)
            if computed is None and self.config.shard_base:  # the others wait for this one within a pass
                raise RuntimeError(
                    f"{self.config.method}: step {step} does not fit into memory, and no smaller one is tried with "
                    "training.shard_base: lower training.micro_batch, or set training.gradient_checkpointing=true"
                )
            if not self.workers.any(computed is None):
                assert computed is not None
                return self.over_workers(units, *computed)
            computed = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if not divisible(units, self.rollouts, self.fit.limit, tokens):
                raise RuntimeError(
                    f"{self.config.method}: one {self.method.unit if self.method.unit == 'pair' else 'row'} of step "
                    f"{step} does not fit into memory: set training.gradient_checkpointing=true, or lower "
                    "prompt.max_answer_tokens"
                )
            self.fit.halve(step)

    def over_workers(
        self, units: Sequence[Unit], sums: dict[str, Tensor], unit_losses: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Sum gradients and logged values over the workers, and gather the units' losses."""
        if self.workers.size == 1:
            return sums, unit_losses
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.workers.add([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        together = unit_losses.new_zeros(len(units))
        together[self.workers.rank :: self.workers.size] = unit_losses
        self.workers.add([*sums.values(), together])
        return sums, together

    def accumulate(self, units: Sequence[Unit], count: float) -> tuple[dict[str, Tensor], Tensor]:
        """Accumulate gradients over forward passes; returns sums of values to log (float64) and each unit's loss.

        ``count`` is the denominator of the whole optimiser step's loss.
        """
        sums: dict[str, Tensor] = {}
        unit_losses = []
        for part in micro_batches(units, self.rollouts, self.fit.limit, self.config.micro_tokens is not None):
            batch = self.batch(part)
            losses = self.method.losses(batch, **self.config.settings)
            (pull,) = torch.autograd.grad(losses.sum(), batch.logp)
            batch.logp.backward(pull / count)
            losses = losses.detach().double()
            unit_losses.append(losses.sum(dim=1) if losses.dim() == 2 else losses)
            for name, value in self.logged(batch, pull, unit_losses[-1]).items():
                sums[name] = sums[name] + value if name in sums else value
        return sums, torch.cat(unit_losses)

    def logged(self, batch: Batch, pull: Tensor, unit_losses: Tensor) -> dict[str, Tensor]:
        """Sums of the values that a step logs; ``pull`` n x t is the losses' gradient at the log-probabilities."""
        nll = batch.nll.detach().double().sum(dim=1)
        reward, right, size = batch.reward.double(), batch.reward > 0, pull.double().abs().sum(dim=1)
        pushed = pull.sum(dim=1) > 0  # a step down the gradient makes these rows less likely
        if self.method.weights is not None:  # the weights' sign is exact
            pushed = self.method.weights(batch.reward, batch.group_mean, **self.config.settings) < 0
        sums = {
            "loss": unit_losses.sum(),
            "nll_right": (nll * right).sum(),
            "nll_wrong": (nll * ~right).sum(),
            "nll_pushed": (nll * pushed).sum(),
            "reward_nll": (nll * reward).sum(),
            "gradient_wrong": (size * ~right).sum(),
            "gradient": size.sum(),
            "tokens_pushed": (batch.lengths * pushed).sum().double(),
        }
        if self.method.metrics is not None:
            metrics = self.method.metrics(batch, **self.config.settings)
            sums |= {name: value.double().sum() for name, value in metrics.items()}
        return sums

    def means_of(self, totals: dict[str, float], units: Sequence[Unit]) -> dict[str, float | None]:
        """Means of logged sums: nats per token of right, wrong and pushed rows (None without such rows), shares, and
        metrics per unit."""
        right, wrong = (self.tokens(units, kind) for kind in (True, False))
        counts: dict[str, float] = dict.fromkeys(totals, len(units))
        counts |= {"nll_right": right, "nll_wrong": wrong, "reward_nll": right + wrong}
        counts |= {"nll_pushed": totals.pop("tokens_pushed"), "gradient_wrong": totals.pop("gradient")}
        return {name: total / counts[name] if counts[name] else None for name, total in totals.items()}

    def tokens(self, units: Sequence[Unit], right: bool) -> int:
        rows = [self.rollouts[row] for unit in units for row in unit]
        return sum(len(rollout.completion_ids) for rollout in rows if rollout.right == right)

    def count(self, units: Sequence[Unit]) -> float:
        """The denominator of an optimiser step's loss."""
        return divisor(self.method, self.config.settings, units, self.rollouts, self.means)

    def batch(self, units: Sequence[Unit]) -> Batch:
        """Forward pass of these units; rows of a pair are adjacent, chosen first."""
        rows = [row for unit in units for row in unit]
        tokens = [self.rollouts[row].tokens for row in rows]
        logp, mask = completion_logps(self.adapter.model, tokens, self.config.head_chunk)

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        reference = None
        if self.method.needs_reference(self.config.settings):
            assert self.reference is not None, "checked before training"
            reference = beside([self.reference[row] for row in rows], mask)
        return Batch(
            logp=logp,
            mask=mask,
            reward=column([self.rollouts[row].reward for row in rows]),
            group_mean=column([self.means[row] for row in rows]),
            reference=reference,
        )


@contextmanager
def dropout_stream(config: TrainConfig, step: int) -> Iterator[None]:
    """Seed dropout per step, so that a resumed step draws the same masks."""
    if config.dropout == 0:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(derive("dropout", config.order_seed, step))
        yield


def failing_rows(units: Sequence[Unit], unit_losses: Tensor) -> list[int]:
    """Rows of the units whose loss is not finite; all rows if only the sum or the gradient is not."""
    bad = [unit for unit, loss in zip(units, unit_losses.tolist(), strict=True) if not math.isfinite(loss)]
    return [row for unit in bad or units for row in unit]
