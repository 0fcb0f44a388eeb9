"""A training that is killed, whatever it was writing, and taken up again ends with the same bytes."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from methods.batch import Rollout
from methods.config import TrainConfig
from methods.state import STATE
from methods.trainer import train
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


@pytest.mark.parametrize("damage", ["header", "tensors", "gone", "log"])
def test_a_damaged_state_is_said_and_started_over(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path, damage: str
) -> None:
    config = make_config(resume_every=2)
    train(config, tiny_model, rollouts, tmp_path / "plain", work=tmp_path / "w")
    work = tmp_path / "w"
    tensors = next(work.glob("state-*.safetensors"))
    if damage == "header":
        (work / STATE).write_text('{"step": 4')
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:100])
    elif damage == "gone":
        tensors.unlink()
    else:
        (work / "result" / "log.jsonl").write_text("")
    with pytest.warns(UserWarning, match=r"cannot be read \(.*\): the training starts over"):
        train(config, tiny_model, rollouts, tmp_path / "again", work=work)
    assert content(tmp_path / "again") == content(tmp_path / "plain")


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
