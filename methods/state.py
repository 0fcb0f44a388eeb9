"""The state from which a killed training goes on: tensors and a small JSON file that names them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.batch import Rollout
from methods.config import TrainConfig

STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


def identity(config: TrainConfig, rollouts: Sequence[Rollout], reference: Sequence[float] | None) -> dict[str, Any]:
    """What must be the same for a state to be gone on from: every setting, and the data by digest."""
    digest = hashlib.sha256()
    for rollout in rollouts:
        row = [list(rollout.prompt_ids), list(rollout.completion_ids), float(rollout.reward), rollout.group]
        digest.update(json.dumps(row).encode())
    digest.update(json.dumps(None if reference is None else [repr(x) for x in reference]).encode())
    return json.loads(json.dumps(asdict(config))) | {"rollouts": digest.hexdigest()}


def save(
    work: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    who: dict[str, Any],
) -> None:
    """Write the state after ``step``: tensors under a new name, then ``state.json``, which makes it count."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[name] = parameter.detach().cpu()
        for moment in MOMENTS:
            tensors[f"{name}/{moment}"] = optimizer.state[parameter][moment].cpu()
    target = work / f"state-{step:06d}.safetensors"
    aside = target.with_suffix(".aside")
    save_file(tensors, aside)
    os.replace(aside, target)
    aside = work / (STATE + ".aside")
    aside.write_text(json.dumps({"step": step, "tensors": target.name, "identity": who}), encoding="utf-8")
    os.replace(aside, work / STATE)
    for old in work.glob("state-*.safetensors"):
        if old != target:
            old.unlink()


def load(
    work: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    who: dict[str, Any],
) -> int:
    """Restore the state in ``work`` and return its step; 0 where there is none.

    ``ValueError`` where it belongs to another training, naming the first setting that differs.
    """
    path = work / STATE
    if not path.exists():
        return 0
    header = json.loads(path.read_text(encoding="utf-8"))
    for name, value in who.items():
        if header["identity"].get(name) != value:
            found = header["identity"].get(name)
            raise ValueError(f"{path}: state of another training ({name} is {found!r} there, {value!r} here)")
    tensors = load_file(work / header["tensors"])
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])
        moments = {moment: tensors[f"{name}/{moment}"].to(parameter.device) for moment in MOMENTS}
        count = torch.tensor(float(header["step"]), device=parameter.device)
        optimizer.state[parameter] = {"step": count, **moments}
    return header["step"]
