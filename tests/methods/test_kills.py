"""A training that is killed, whatever it was writing, and taken up again ends with the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from methods.batch import Rollout
from methods.config import TrainConfig
from methods.state import STATE
from methods.trainer import train
from tests.methods.test_parallel import ROOT, WORKER, run_workers

Make = Callable[..., TrainConfig]
# Dies at the n-th call of one of the functions through which anything becomes visible on the disk.
KILLER = """
import os, shutil, sys
import safetensors.torch
count, at = 0, int(sys.argv[4])
def deadly(function):
    def call(*given, **named):
        global count
        count += 1
        if count == at:
            os._exit(77)
        result = function(*given, **named)
        count += 1
        if count == at:
            os._exit(77)
        return result
    return call
os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)
shutil.copytree, shutil.copy2 = deadly(shutil.copytree), deadly(shutil.copy2)
safetensors.torch.save_file = deadly(safetensors.torch.save_file)
"""


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_killed_at_every_few_writes_it_ends_with_the_same_bytes(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    config = make_config(resume_every=2, checkpoint_every=3, report_step=4)
    train(config, tiny_model, rollouts, tmp_path / "plain", work=tmp_path / "w")
    wanted = content(tmp_path / "plain")
    run_workers(config, tiny_model, rollouts, None, tmp_path / "run", stop=1)  # writes given.json, trains one step
    program = tmp_path / "killed.py"
    one_process = WORKER.replace("dist.init_process_group(", "(lambda *a, **k: None)(")
    program.write_text(KILLER + one_process)
    given = json.loads((tmp_path / "run" / "given.json").read_text())
    deaths = 0
    for at in range(1, 60, 5):
        folder = tmp_path / f"killed-{at}"
        (folder / "work").mkdir(parents=True)
        told = folder / "given.json"
        told.write_text(json.dumps(given | {"out": str(folder / "out"), "work": str(folder / "work")}))
        words = [sys.executable, str(program), str(told), "0", "0", str(at)]
        done = subprocess.run(words, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
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
