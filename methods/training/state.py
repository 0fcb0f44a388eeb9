"""The state from which a killed training goes on: tensors and a small JSON file that names them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from execution import durable
from execution.settings import keyed
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.parallel import Group
from methods.training.record import Kept, verify

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


def identity(
    config: TrainConfig, rollouts: Sequence[Rollout], reference: Sequence[np.ndarray] | None
) -> dict[str, Any]:
    """What must be the same for a state to be gone on from: every setting that decides the result, and the data by
    digest."""
    digest = hashlib.sha256()
    for rollout in rollouts:
        row = [list(rollout.prompt_ids), list(rollout.completion_ids), float(rollout.reward), rollout.group]
        digest.update(json.dumps([*row, rollout.teacher, rollout.group_mean]).encode())
    for values in reference or ():
        digest.update(values.astype("<f4").tobytes() + b";")
    return json.loads(json.dumps(keyed(config))) | {"rollouts": digest.hexdigest()}


def save(
    work: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    who: dict[str, Any],
    memory: dict[str, Any],
    result: Kept,
) -> None:
    """Write the state after ``step``: tensors under a new name, then ``state.json``, which makes it count.

    ``memory`` is what running out of memory has made of the micro-batch (:class:`methods.training.trainer.Fit`),
    ``result`` what the record holds so far (:meth:`methods.training.record.Record.sync`).
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[name] = parameter.detach().cpu()
        for moment in MOMENTS:
            tensors[f"{name}/{moment}"] = optimizer.state[parameter][moment].cpu()
    target = work / f"state-{step:06d}.safetensors"
    durable.replace(target, lambda path: save_file(tensors, path))
    held = {"tensors": {target.name: durable.checksum(target)}, "result": result}
    durable.keep(work / STATE, {"step": step, "identity": who, "memory": memory, **held})
    for old in work.glob("state-*.safetensors"):
        if old != target:
            durable.discard(old)


def load(
    work: Path,
    result: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    who: dict[str, Any],
) -> tuple[int, dict[str, Any], Kept | None]:
    """Restore the state in ``work``: its step, its ``memory``, and what of the record in ``result`` it goes on from.

    0, nothing and None where there is no state. One of another training, or any of whose files was damaged, is no
    error: a warning names it, all that is in ``work`` is thrown away, and the training starts over.
    """
    path = work / STATE
    try:
        header = durable.unseal(path.read_bytes())
        found = header["identity"]
        for name in {**who, **found}:
            if found.get(name) != who.get(name):
                told = f"{name} is {found.get(name)!r} there, {who.get(name)!r} here"
                raise ValueError(f"it is of another training: {told}")
        (name, checksum), *_ = header["tensors"].items()
        if durable.checksum(work / name) != checksum:
            raise ValueError(f"{name} was changed")
        verify(result, header["result"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not isinstance(error, FileNotFoundError) or error.filename != str(path):
            durable.lost(path, error, "the training starts over")
        for left in work.iterdir() if work.is_dir() else ():
            durable.discard(left)
        return 0, {}, None
    tensors, step = load_file(work / name), header["step"]
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])
        moments = {moment: tensors[f"{name}/{moment}"].to(parameter.device) for moment in MOMENTS}
        optimizer.state[parameter] = {"step": counter(step, parameter), **moments}
    return step, header["memory"], header["result"]


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
