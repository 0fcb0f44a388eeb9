"""The way of a training's elements, how much of it is undone, and the signal in its gradient, against closed forms."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from execution import durable
from execution.durable import Lost
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.motion import Motion, clipped
from methods.training.record import path_ratio
from methods.training.start import initial_a
from methods.training.state import STATE
from methods.training.trainer import train

Make = Callable[..., TrainConfig]


class Set(torch.optim.AdamW):
    """Moves its parameters to given values, and keeps Adam's moments of given gradients."""

    def go(self, values: torch.Tensor, gradient: torch.Tensor) -> None:
        (parameter,) = self.param_groups[0]["params"]
        held = self.state[parameter]
        held["exp_avg"] = 0.9 * held.get("exp_avg", torch.zeros_like(gradient)) + 0.1 * gradient
        with torch.no_grad():
            parameter.copy_(values)


def moved(places: Iterable[list[float]], gradients: Iterable[torch.Tensor] | None = None) -> list[dict[str, Any]]:
    """What is logged of a training that starts at zero and stands at ``places`` after its steps."""
    places = [torch.tensor(place) for place in places]
    parameter = nn.Parameter(torch.zeros_like(places[0]))
    optimizer = Set([parameter])
    motion = Motion([parameter], optimizer, 0.9)
    lines = []
    for step, (place, gradient) in enumerate(zip(places, gradients or [torch.ones(1)] * len(places), strict=True), 1):
        motion.begin()
        optimizer.go(place, gradient)
        lines.append(motion.end(step, float(gradient.norm()), float(place.norm())))
    return lines


def test_nothing_of_a_straight_way_is_undone_and_all_of_one_there_and_back() -> None:
    straight = moved([[0.25, -0.5], [0.5, -1.0], [1.0, -1.5]])
    assert [line["undone"] for line in straight] == pytest.approx([0.0, 0.0, 0.0], abs=1e-7)
    there_and_back = moved([[0.25, -0.5], [0.5, -1.0], [0.25, -0.5], [0.0, 0.0]])
    assert there_and_back[-1]["undone"] == 1.0
    assert there_and_back[2]["undone"] == pytest.approx(1 - 1 / 3)  # one unit away after a way of three


def test_the_way_is_summed_by_element_and_before_anything_moves_nothing_is_said() -> None:
    """Elements that go 1 + 2 and 0 + 4: root mean square of 3 and 4, displacement of -1 and 4."""
    first, second, last = moved([[0.0, 0.0], [1.0, 0.0], [-1.0, 4.0]])
    assert (first["path"], first["undone"]) == (0.0, None)
    assert second["undone"] == 0.0
    assert last["path"] == pytest.approx(math.sqrt((9 + 16) / 2))
    assert last["undone"] == pytest.approx(1 - math.sqrt(17) / 5)


def test_a_constant_gradient_is_all_signal_at_any_size() -> None:
    for size in (1e-6, 1.0):
        lines = moved([[0.0]] * 30, [torch.tensor([3.0, -4.0]) * size] * 30)
        assert [line["signal"] for line in lines] == pytest.approx([1.0] * 30)
    assert moved([[0.0]], [torch.zeros(2)])[0]["signal"] is None


@pytest.mark.parametrize("steps", [3, 200])
def test_noise_has_the_signal_that_the_formula_says(steps: int) -> None:
    """Of n independent elements the share's mean is that of the weights' squares; its deviation falls with sqrt(n)."""
    generator = torch.Generator().manual_seed(1)
    noise = [torch.randn(40_000, generator=generator) for _ in range(steps)]
    expected = (1 - 0.9) / (1 + 0.9) * (1 + 0.9**steps) / (1 - 0.9**steps)
    assert moved([[0.0]] * steps, noise)[-1]["signal"] == pytest.approx(expected, rel=0.03)
    mean = [0.5 + one for one in noise]  # power 1 + .25, of which the mean has .25 and its share of the noise
    assert moved([[0.0]] * steps, mean)[-1]["signal"] == pytest.approx((0.25 + expected) / 1.25, rel=0.03)


def test_noise_that_shrinks_by_half_a_window_keeps_a_share_between_0_and_1() -> None:
    falling = [torch.ones(1) * 0.5**step for step in range(60)]
    assert all(0 < line["signal"] <= 1 for line in moved([[0.0]] * 60, falling))


def test_the_clipped_norm_is_what_torch_makes_of_a_gradient() -> None:
    for norm, limit in ((5.0, 1.0), (0.5, 1.0), (1.0, 1.0)):
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([0.6, 0.8]) * norm
        nn.utils.clip_grads_with_norm_([parameter], limit, torch.tensor(norm))
        assert clipped(norm, limit) == pytest.approx(float(parameter.grad.norm()), rel=1e-6)


def test_the_way_beside_that_of_full_steps() -> None:
    lines: list[dict[str, Any]] = [{"path": 0.0, "learning_rate": 0.0}, {"path": 0.03, "learning_rate": 0.1}]
    assert path_ratio(lines) == pytest.approx(0.3)
    assert path_ratio(lines[:1]) is None and path_ratio([{"path": None, "learning_rate": 0.1}]) is None


def test_a_training_logs_what_its_saved_adapters_tell(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    """An adapter is kept of every step: the way is summed here from the files, in float64."""
    config = make_config("sft", checkpoint_every=1, report_step=5, warmup=0.0, weight_decay=0.0)
    out = tmp_path / "out"
    train(config, tiny_model, rollouts, out, work=tmp_path / "work")
    summary = json.loads((out / "training.json").read_text())
    places = [started(load_file(out / "adapter/adapter_model.safetensors"), config.init_seed)]
    for step in range(1, 6):
        held = load_file(out / f"checkpoints/step-{step:06d}/adapter_model.safetensors")
        places.append(np.concatenate([held[name].double().numpy().ravel() for name in sorted(held)]))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    way = np.sum([abs(after - before) for before, after in itertools.pairwise(places)], axis=0)
    total = np.linalg.norm(way)
    assert log[4]["path"] == pytest.approx(total / math.sqrt(way.size), rel=1e-5)
    displacement = math.hypot(log[4]["a_moved"], log[4]["b_norm"])
    assert summary["undone"] == log[4]["undone"] == pytest.approx(1 - displacement / total)
    assert summary["signal"] == log[4]["signal"] and 0 < summary["signal"] <= 1
    assert summary["path_ratio"] == pytest.approx(log[4]["path"] / sum(line["learning_rate"] for line in log[:5]))
    assert log[0]["signal"] == pytest.approx(1.0) and log[0]["undone"] == 0.0


def started(held: dict[str, torch.Tensor], seed: int) -> np.ndarray:
    """Where an adapter's elements began: A as drawn from the seed, B zero."""
    parts = []
    for name in sorted(held):
        module = name.removeprefix("base_model.model.").partition(".lora_")[0]
        shape = held[name].shape
        parts.append(initial_a(seed, module, *shape) if ".lora_A." in name else torch.zeros(shape))
    return np.concatenate([part.double().numpy().ravel() for part in parts])


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_the_split_into_forward_passes_changes_neither(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path, micro_batch: int
) -> None:
    found = [
        train(
            make_config("rift", micro_batch=size),
            tiny_model,
            rollouts,
            tmp_path / f"{size}",
            work=tmp_path / f"w{size}",
        )
        for size in (8, micro_batch)
    ]
    for name in ("undone", "signal", "path_ratio"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-3)


def test_a_state_of_the_version_before_starts_over_with_a_warning(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    config = make_config(resume_every=2)
    train(config, tiny_model, rollouts, tmp_path / "one", work=tmp_path / "w")
    header = durable.unseal((tmp_path / "w" / STATE).read_bytes())
    del header["format"], header["memory"]["power"]
    durable.keep(tmp_path / "w" / STATE, header)
    with pytest.warns(Lost, match="another version of this tool saved it.: the training starts over"):
        train(config, tiny_model, rollouts, tmp_path / "two", work=tmp_path / "w")
    assert (tmp_path / "one" / "log.jsonl").read_bytes() == (tmp_path / "two" / "log.jsonl").read_bytes()
