"""Data-parallel training on two real gloo processes: the gradient is that of one, and no worker is left waiting."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from safetensors.torch import load_file

from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.logprobs import reference_logprobs
from methods.training.trainer import TrainingDiverged, assist, train
from tests import forked

Make = Callable[..., TrainConfig]


def work(given: dict[str, Any], rank: int, stop: int) -> None:
    """One of two workers, in a process of its own: a training that step ``stop`` interrupts, or the help to one."""
    meet = Path(given["meet"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meet}", rank=rank, world_size=given["config"]["workers"],
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    config = TrainConfig(**given["config"])
    rollouts = [Rollout(*row) for row in given["rollouts"]]
    common: dict[str, Any] = {
        "reference": [np.array(row, dtype=np.float32) for row in given["reference"] or []] or None,
        "heldout": [Rollout(*row) for row in given["heldout"]],
    }
    left = meet.with_name("meet-left")
    if rank:
        assist(config, Path(given["model"]), rollouts, **common)
        left.write_text("")
        os._exit(0)  # gloo's threads abort a process that is taken down after the other one has gone

    def on_step(line: dict[str, Any]) -> None:
        if line["step"] == stop:
            raise KeyboardInterrupt

    folders = {"out": Path(given["out"]), "work": Path(given["work"])}
    try:
        train(config, Path(given["model"]), rollouts, on_step=on_step, **folders, **common)
    finally:
        until = time.monotonic() + 30
        while config.workers > 1 and not left.exists() and time.monotonic() < until:
            time.sleep(0.01)


def handed(
    config: TrainConfig,
    model: Path,
    rollouts: list[Rollout],
    reference: Any,
    folder: Path,
    heldout: Sequence[Rollout] = (),
) -> dict[str, Any]:
    """What a worker is given, in values that a process can be handed."""

    def values(rows: Sequence[Rollout]) -> list[list[Any]]:
        return [[list(r.prompt_ids), list(r.completion_ids), r.reward, r.group] for r in rows]

    return {
        "config": asdict(config), "model": str(model), "meet": str(folder / "meet"),
        "reference": None if reference is None else [row.tolist() for row in reference],
        "rollouts": values(rollouts), "heldout": values(heldout),
        "out": str(folder / "out"), "work": str(folder / "work"),
    }  # fmt: skip


def run_workers(
    config: TrainConfig,
    model: Path,
    rollouts: list[Rollout],
    reference: Any,
    folder: Path,
    stop: int = 0,
    heldout: Sequence[Rollout] = (),
) -> list[subprocess.CompletedProcess[str]]:
    folder.mkdir(exist_ok=True)
    (folder / "work").mkdir(exist_ok=True)
    for name in ("meet", "meet-left"):
        (folder / name).unlink(missing_ok=True)
    given = handed(config, model, rollouts, reference, folder, heldout)
    return forked.run(work, [(given, rank, stop) for rank in range(config.workers)], folder / "streams")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "out" / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sft", {}),
        ("dpo", {}),
        ("offline_grpo", {"form": "source"}),
        ("rift", {"form": "source", "probability": "normalised", "divide_by": "weights"}),
    ],
    ids=["token", "pair", "token, reference", "sequence, weights"],
)
def test_two_workers_train_what_one_trains(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    """Whatever is logged too; and stopped in between and taken up again, to the same bytes."""
    reference = reference_logprobs(tiny_model, rollouts, precision="float32")
    single = make_config(method, settings=settings)
    train(single, tiny_model, rollouts, tmp_path / "one" / "out", reference=reference, work=tmp_path)
    config = make_config(method, settings=settings, workers=2, resume_every=2)
    ended = run_workers(config, tiny_model, rollouts, reference, tmp_path / "two")
    assert [e.returncode for e in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)
    log = [json.loads((tmp_path / n / "out" / "log.jsonl").read_text().splitlines()[0]) for n in ("one", "two")]
    rounding = {"margin", "reward_accuracy", "kl"}  # at the base these are nothing but that
    alone, both = ({k: -1.0 if v is None else v for k, v in line.items() if k not in rounding} for line in log)
    assert both == pytest.approx(alone, rel=1e-5)

    stopped = run_workers(config, tiny_model, rollouts, reference, tmp_path / "again", stop=3)
    assert stopped[0].returncode != 0 and stopped[1].returncode == 0, "the second worker is told, and ends"
    ended = run_workers(config, tiny_model, rollouts, reference, tmp_path / "again")
    assert [e.returncode for e in ended] == [0, 0], ended[0].stderr
    again = weights(tmp_path / "again")
    assert all(torch.equal(again[name], two[name]) for name in two)


def test_two_workers_train_from_the_same_b(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    train(make_config(start="b"), tiny_model, rollouts, tmp_path / "one" / "out", work=tmp_path)
    ended = run_workers(make_config(start="b", workers=2), tiny_model, rollouts, None, tmp_path / "two")
    assert [e.returncode for e in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)


def test_all_workers_see_a_divergence(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    config = make_config(workers=2, learning_rate=1e30)
    first, second = run_workers(config, tiny_model, rollouts, None, tmp_path / "run")
    with pytest.raises(TrainingDiverged) as alone:
        train(make_config(learning_rate=1e30), tiny_model, rollouts, tmp_path / "out", work=tmp_path)
    assert first.returncode == 1 and f"TrainingDiverged: {alone.value}" in first.stderr
    assert second.returncode == 0


def test_a_group_of_another_size_is_refused(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="workers: the training needs 2, the process group has 1"):
        train(make_config(workers=2), tiny_model, rollouts, tmp_path / "out", work=tmp_path)
    with pytest.raises(ValueError, match="workers: 9 cannot share a batch of 8"):
        make_config(workers=9)
