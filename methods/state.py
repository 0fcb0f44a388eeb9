"""The state from which a killed training goes on: tensors and a small JSON file that names them."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods import durable
from methods.batch import Rollout
from methods.config import TrainConfig
from methods.parallel import Group

STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
SHARE = 0.05  # of the time, at most, goes into states that are saved by the clock


class Due:
    """Says after which steps a state is saved: every ``every`` steps, and ``seconds`` after the last one (0: neither).

    Where saving is slow it waits longer, so that what the clock asks for takes :data:`SHARE` of the time at most.
    """

    def __init__(self, every: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.every, self.seconds, self.clock = every, seconds, clock
        self.last, self.took = clock(), 0.0

    def __call__(self, step: int) -> bool:
        self.begun = self.clock()
        late = self.begun - self.last >= max(self.seconds, self.took / SHARE)
        return bool((self.every and step % self.every == 0) or (self.seconds and late))

    def saved(self) -> None:
        """The state of the step that was due is kept: the clock runs from here."""
        self.last = self.clock()
        self.took = self.last - self.begun


class StateLost(UserWarning):
    """A saved state cannot be gone on from: the training starts over."""


def identity(
    config: TrainConfig, rollouts: Sequence[Rollout], reference: Sequence[np.ndarray] | None
) -> dict[str, Any]:
    """What must be the same for a state to be gone on from: every setting, and the data by digest."""
    digest = hashlib.sha256()
    for rollout in rollouts:
        row = [list(rollout.prompt_ids), list(rollout.completion_ids), float(rollout.reward), rollout.group]
        digest.update(json.dumps([*row, rollout.teacher, rollout.group_mean]).encode())
    for values in reference or ():
        digest.update(values.astype("<f4").tobytes() + b";")
    settings = json.loads(json.dumps(asdict(config)))
    for name in ("resume_every", "resume_seconds"):  # how often a state is saved decides nothing
        del settings[name]
    return settings | {"rollouts": digest.hexdigest()}


def save(
    work: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    who: dict[str, Any],
    memory: dict[str, Any],
) -> None:
    """Write the state after ``step``: tensors under a new name, then ``state.json``, which makes it count.

    ``memory`` is what running out of memory has made of the micro-batch (:class:`methods.trainer.Fit`).
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[name] = parameter.detach().cpu()
        for moment in MOMENTS:
            tensors[f"{name}/{moment}"] = optimizer.state[parameter][moment].cpu()
    target = work / f"state-{step:06d}.safetensors"
    durable.replace(target, lambda path: save_file(tensors, path))
    header = {"step": step, "tensors": target.name, "identity": who, "memory": memory}
    durable.replace(work / STATE, lambda path: path.write_text(json.dumps(header), encoding="utf-8"))
    for old in work.glob("state-*.safetensors"):
        if old != target:
            old.unlink()


def load(
    work: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    who: dict[str, Any],
    logged: int,
) -> tuple[int, dict[str, Any]]:
    """Restore the state in ``work``; its step (0 where there is none) and its ``memory``.

    A state that cannot be read, or is ahead of the ``logged`` steps, is no error: a warning says so, and the training
    starts over. ``ValueError`` where it belongs to another training, naming the first setting that differs.
    """
    path = work / STATE
    if not path.exists():
        return 0, {}
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        step, memory, tensors = header["step"], header["memory"], load_file(work / header["tensors"])
        found = header["identity"]
        wanted = {name + end for name in parameters for end in ("", *(f"/{moment}" for moment in MOMENTS))}
        if not wanted <= tensors.keys() and found == who:
            raise ValueError("tensors are missing")
        if step > logged:
            raise ValueError(f"its log ends at step {logged}")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        warnings.warn(f"{path} cannot be read ({error}): the training starts over", StateLost, stacklevel=2)
        return 0, {}
    for name, value in who.items():
        if found.get(name) != value:
            raise ValueError(f"{path}: state of another training ({name} is {found.get(name)!r} there, {value!r} here)")
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])
        moments = {moment: tensors[f"{name}/{moment}"].to(parameter.device) for moment in MOMENTS}
        optimizer.state[parameter] = {"step": counter(step, parameter), **moments}
    return step, memory


def counter(step: int, parameter: Tensor) -> Tensor:
    """AdamW's count of steps, as its fused form keeps it."""
    return torch.tensor(float(step), device=parameter.device)


def spread(group: Group, done: int, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Give all workers the first one's parameters and moments after ``done`` steps."""
    if done == 0:
        return
    for parameter in parameters.values():
        if group.rank:
            moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
            optimizer.state[parameter] = {"step": counter(done, parameter), **moments}
        group.copy([parameter.data, *(optimizer.state[parameter][moment] for moment in MOMENTS)])
