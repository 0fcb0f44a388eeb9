"""A training in parts, each going on from the state of the one before, ends with the bytes of an undisturbed one."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execution.durable import Lost
from methods.config import HANDED_ON, TrainConfig
from methods.data.batch import Rollout
from methods.training.trainer import train
from tests.methods.test_kills import content

Make = Callable[..., TrainConfig]


def in_parts(
    make_config: Make, ends: tuple[int, ...], model: Path, rollouts: list[Rollout], root: Path, **settings: Any
) -> tuple[Path, list[int]]:
    """Train to each of ``ends`` from the state before, then to the end; the last folder, and every step that ran."""
    before, ran = None, list[int]()
    for end in (*ends, None):
        cut = {} if end is None else {"run_steps": end, "report_step": end, "keep_state": True}
        out, work = root / f"out-{end}", root / f"work-{end}"
        if before is not None:
            shutil.copytree(before / HANDED_ON, work)
        train(make_config(**settings | cut), model, rollouts[:40], out, heldout=rollouts[40:], work=work,
              on_step=lambda line: ran.append(line["step"]))  # fmt: skip
        before = out
    assert before is not None
    return before, ran


@pytest.mark.parametrize("ends", [(3,), (2, 4)])
def test_in_parts_it_ends_with_the_same_bytes(
    ends: tuple[int, ...], tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    settings = {"report_step": 5, "checkpoint_every": 2, "probe_every": 3, "probe_rows": 8, "dropout": 0.1}
    whole = make_config(**settings)
    train(whole, tiny_model, rollouts[:40], tmp_path / "plain", heldout=rollouts[40:], work=tmp_path / "w")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Lost)
        parts, ran = in_parts(make_config, ends, tiny_model, rollouts, tmp_path, **settings)
    assert ran == list(range(1, whole.last_step + 1)), "no step was trained twice"
    assert content(parts) == content(tmp_path / "plain")


def test_a_state_from_beyond_the_reported_step_is_not_taken_up(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    """Its adapter was handed on by nobody: the training starts over, and says so."""
    settings = {"report_step": 2}
    with pytest.warns(Lost, match="it is of another training: report_step"):
        parts, ran = in_parts(make_config, (3,), tiny_model, rollouts, tmp_path, **settings)
    assert ran[:4] == [1, 2, 3, 1]
    assert (parts / "adapter").is_dir()


def test_another_learning_rate_is_another_training(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    first = make_config(run_steps=2, report_step=2, keep_state=True)
    train(first, tiny_model, rollouts, tmp_path / "first", work=tmp_path / "w")
    shutil.copytree(tmp_path / "first" / HANDED_ON, tmp_path / "work")
    with pytest.warns(Lost, match="it is of another training: learning_rate"):
        train(make_config(learning_rate=1e-5), tiny_model, rollouts, tmp_path / "other", work=tmp_path / "work")


def test_trl_hands_no_state_on(make_config: Make) -> None:
    with pytest.raises(ValueError, match="keep_state: trl keeps no state"):
        make_config(backend="trl", keep_state=True)
