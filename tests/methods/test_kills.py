"""A training that is killed, whatever it was writing, and taken up again ends with the same bytes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from torch import nn

from execution import durable
from execution.durable import Lost
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training import state
from methods.training.state import MOMENTS, STATE
from methods.training.trainer import train
from tests import forked
from tests.methods.test_parallel import handed

Make = Callable[..., TrainConfig]
WRITERS = ((os, "replace"), (os, "fsync"), (shutil, "copytree"), (shutil, "copy2"), (safetensors.torch, "save_file"))


def dying(given: dict[str, Any], at: int) -> None:
    """A training that dies before or after the n-th call of the functions by which anything gets onto the disk."""
    instants = itertools.count(1)

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            if next(instants) == at:
                os._exit(77)
            result = function(*words, **named)
            if next(instants) == at:
                os._exit(77)
            return result

        return call

    for place, name in WRITERS:
        setattr(place, name, deadly(getattr(place, name)))
    rollouts = [Rollout(*row) for row in given["rollouts"]]
    train(TrainConfig(**given["config"]), Path(given["model"]), rollouts, Path(given["out"]), work=Path(given["work"]))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_killed_at_every_few_writes_it_ends_with_the_same_bytes(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    config = make_config(resume_every=2, checkpoint_every=3, report_step=4)
    train(config, tiny_model, rollouts, tmp_path / "plain", work=tmp_path / "w")
    wanted = content(tmp_path / "plain")
    deaths = 0
    for at in range(1, 60, 5):
        folder = tmp_path / f"killed-{at}"
        (folder / "work").mkdir(parents=True)
        given = handed(config, tiny_model, rollouts, None, folder)
        (done,) = forked.run(dying, [(given, at)], folder / "streams")
        assert done.returncode in (0, 77), done.stderr
        deaths += done.returncode == 77
        train(config, tiny_model, rollouts, folder / "again", work=folder / "work")
        assert content(folder / "again") == wanted, f"killed at write {at}"
    assert deaths >= 8


def flip(path: Path, at: float = 0.5) -> None:
    """One bit of the file becomes another."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def test_one_bit_of_what_is_kept_is_said_and_the_training_ends_with_the_same_bytes(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    config = make_config(resume_every=2, report_step=4)
    train(config, tiny_model, rollouts, tmp_path / "plain", work=tmp_path / "w")
    wanted = content(tmp_path / "plain")
    for name in ("tensors", "result/log.jsonl", "result/adapter/adapter_model.safetensors"):
        work = Path(shutil.copytree(tmp_path / "w", tmp_path / f"w {Path(name).name}"))
        path = next(work.glob("state-*.safetensors")) if name == "tensors" else work / name
        flip(path)
        named = path.relative_to(work if name == "tensors" else work / "result")
        with pytest.warns(
            Lost, match=rf"{STATE} cannot be read \({named} was (cut or )?changed\): the training starts"
        ):
            train(config, tiny_model, rollouts, tmp_path / name, work=work)
        assert content(tmp_path / name) == wanted, name


class Kept:
    """A state of one parameter after two steps, with its record of two files, and what is loaded from it."""

    who: ClassVar[dict[str, Any]] = {"learning_rate": 0.1, "rollouts": "abc"}

    def __init__(self, folder: Path) -> None:
        self.work, self.result = folder / "work", folder / "work" / "result"
        (self.result / "adapter").mkdir(parents=True)
        (self.result / "log.jsonl").write_bytes(b"one\ntwo\nthree\n")  # the third step is not in the state
        (self.result / "adapter" / "weights").write_bytes(b"weights")
        self.parameters = {"a": nn.Parameter(torch.arange(4.0))}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), fused=True)
        self.optimizer.state[self.parameters["a"]] = {m: torch.ones(4) for m in MOMENTS}
        digest = {p: hashlib.sha256(p).hexdigest() for p in (b"one\ntwo\n", b"weights")}
        self.told: Any = {"bytes": 8, "log": digest[b"one\ntwo\n"], "files": {"adapter/weights": digest[b"weights"]}}
        state.save(self.work, 2, self.parameters, self.optimizer, self.who, {"limit": 8}, self.told)
        self.tensors = self.work / "state-000002.safetensors"
        self.parameters["a"].data.zero_()

    def load(self) -> Any:
        return state.load(self.work, self.result, self.parameters, self.optimizer, self.who)


def test_a_whole_state_is_gone_on_from(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert kept.load() == (2, {"limit": 8}, kept.told)
    assert kept.parameters["a"].tolist() == [0, 1, 2, 3]


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE: dict[str, Callable[[Kept], object]] = {
    "state empty": lambda k: (k.work / STATE).write_text(""),
    "state cut": lambda k: (k.work / STATE).write_bytes((k.work / STATE).read_bytes()[:-9]),
    "state is a folder": lambda k: (durable.discard(k.work / STATE), (k.work / STATE / "x").mkdir(parents=True)),
    "state without end": lambda k: (k.work / STATE).write_text("[" * 100_000),
    "step": lambda k: edited(k.work / STATE, step=1),
    "memory": lambda k: edited(k.work / STATE, memory={"limit": 4}),
    "identity": lambda k: edited(k.work / STATE, identity=k.who | {"rollouts": "abd"}),
    "another training": lambda k: durable.keep(k.work / STATE, {"identity": k.who | {"learning_rate": 0.2}}),
    "older": lambda k: durable.keep(k.work / STATE, {"step": 2, "identity": k.who}),
    "tensors flipped": lambda k: flip(k.tensors),
    "tensors cut": lambda k: k.tensors.write_bytes(k.tensors.read_bytes()[:100]),
    "tensors gone": lambda k: k.tensors.unlink(),
    "log flipped": lambda k: flip(k.result / "log.jsonl", 0.1),
    "log cut": lambda k: (k.result / "log.jsonl").write_text("one\n"),
    "log gone": lambda k: (k.result / "log.jsonl").unlink(),
    "log is a folder": lambda k: (durable.discard(k.result / "log.jsonl"), (k.result / "log.jsonl").mkdir()),
    "adapter flipped": lambda k: flip(k.result / "adapter" / "weights"),
    "adapter gone": lambda k: durable.discard(k.result / "adapter"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_said_once_thrown_away_and_started_over(tmp_path: Path, damage: str) -> None:
    kept = Kept(tmp_path)
    DAMAGE[damage](kept)
    with pytest.warns(Lost, match=rf"work/{STATE} cannot be read \(.+\): the training starts over$"):
        assert kept.load() == (0, {}, None)
    assert list(kept.work.iterdir()) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept.load() == (0, {}, None)


def test_another_way_of_saving_states_goes_on_from_the_same_state(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    saved: list[int] = []
    config = make_config(resume_every=2)
    train(config, tiny_model, rollouts, tmp_path / "one", work=tmp_path / "w", on_save=lambda: saved.append(1))
    assert len(saved) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(make_config(resume_every=3), tiny_model, rollouts, tmp_path / "two", work=tmp_path / "w")
    assert content(tmp_path / "one") == content(tmp_path / "two")
