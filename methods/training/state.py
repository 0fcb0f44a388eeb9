"""The resume state of a training: tensors, and a small JSON file that names them."""

from __future__ import annotations

import hashlib
import json
import shutil
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
from methods.training.motion import PATH
from methods.training.parallel import Group
from methods.training.record import Kept, verify

STATE = "state.json"
FORMAT = 2  # of the state: what it holds of a parameter
RESULT = "result"  # the outputs so far, beside the state
ENDS = ("run_steps", "report_step", "keep_state")  # settings that decide where a training ends, and no step before
MOMENTS = ("exp_avg", "exp_avg_sq", PATH)
SHARE = 0.05  # largest fraction of the time spent on saving states by the clock


class Due:
    """Decides after which steps a state is saved: every ``every`` steps, and ``seconds`` after the last save (0: off).

    Where saving is slow, saves by the clock are spaced so that they take :data:`SHARE` of the time at most.
    """

    def __init__(self, every: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.every, self.seconds, self.clock = every, seconds, clock
        self.last, self.took = clock(), 0.0

    def __call__(self, step: int) -> bool:
        self.begun = self.clock()
        late = self.begun - self.last >= max(self.seconds, self.took / SHARE)
        return bool((self.every and step % self.every == 0) or (self.seconds and late))

    def saved(self) -> None:
        """Restart the clock after a save."""
        self.last = self.clock()
        self.took = self.last - self.begun


def identity(
    config: TrainConfig, rollouts: Sequence[Rollout], reference: Sequence[np.ndarray] | None
) -> dict[str, Any]:
    """What must match for a state to be resumed: every setting that affects the result, and a digest of the data."""
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
    """Write the state after ``step``: tensors under a new name, then ``state.json``, which commits them.

    ``memory`` is the micro-batch limit after out-of-memory events (:class:`methods.training.trainer.Fit`) and the
    gradient's ``power`` (:class:`methods.training.motion.Motion`), ``result`` the checksums of the outputs so far
    (:meth:`methods.training.record.Record.sync`).
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[name] = parameter.detach().cpu()
        for moment in MOMENTS:
            tensors[f"{name}/{moment}"] = optimizer.state[parameter][moment].cpu()
    target = work / f"state-{step:06d}.safetensors"
    durable.replace(target, lambda path: save_file(tensors, path))
    held = {"tensors": {target.name: durable.checksum(target)}, "result": result}
    durable.keep(work / STATE, {"step": step, "format": FORMAT, "identity": who, "memory": memory, **held})
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
    """Restore the state in ``work``; returns its step, its ``memory``, and the checksums of the outputs in ``result``.

    (0, {}, None) if there is no state. A state of another training, or with a damaged file, is removed with all of
    ``work`` and a warning, and the training starts over. A training that only ends elsewhere is the same one up to
    there: its state is taken up if it is from before the step that is reported here.
    """
    path = work / STATE
    try:
        header = durable.unseal(path.read_bytes())
        stored = header["identity"]
        differing = [name for name in {**who, **stored} if stored.get(name) != who.get(name)]
        longer = bool(differing) and set(differing) <= set(ENDS) and header["step"] < reported(who)
        for name in () if longer else differing:
            difference = f"{name} is {stored.get(name)!r} there, {who.get(name)!r} here"
            raise ValueError(f"it is of another training: {difference}")
        if header.get("format") != FORMAT:
            raise ValueError("another version of this tool saved it")
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


def reported(who: dict[str, Any]) -> int:
    """The step whose adapter counts, by an :func:`identity`."""
    return who["report_step"] or who["run_steps"] or who["steps"]


def hand_on(work: Path, to: Path) -> None:
    """Copy the state in ``work`` and the outputs so far to ``to``, for a longer training to go on from.

    The adapter of the step that is reported is left out: the longer training reports a later one.
    """
    header = durable.unseal((work / STATE).read_bytes())
    shutil.copytree(work / RESULT, to / RESULT, ignore=lambda at, names: ["adapter"] if Path(at).name == RESULT else [])
    for name in header["tensors"]:
        shutil.copyfile(work / name, to / name)
    files = {name: of for name, of in header["result"]["files"].items() if not name.startswith("adapter/")}
    durable.keep(to / STATE, {**header, "result": {**header["result"], "files": files}})


def counter(step: int, parameter: Tensor) -> Tensor:
    """AdamW's step count, in the form that the fused implementation keeps."""
    return torch.tensor(float(step), device=parameter.device)


def spread(group: Group, done: int, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Broadcast rank 0's parameters and moments after ``done`` steps."""
    if done == 0:
        return
    for parameter in parameters.values():
        if group.rank:
            moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
            optimizer.state[parameter] = {"step": counter(done, parameter), **moments}
        group.copy([parameter.data, *(optimizer.state[parameter][moment] for moment in MOMENTS)])
