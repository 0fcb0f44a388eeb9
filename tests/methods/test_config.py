from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from methods.config import TrainConfig


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "ppo"}, "unknown method 'ppo'"),
        ({"settings": {"beta": 1.0}}, "sft: unknown setting 'beta'"),
        ({"precision": "float16"}, "precision: 'float16' is not one of float32, bfloat16"),
        ({"micro_batch": 0}, "micro_batch: must be at least 1, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate: must be a finite number, not nan"),
        ({"learning_rate": 0.0}, "learning_rate: must be above 0, not 0.0"),
        ({"report_step": 7}, "report_step <= run_steps <= steps must hold, not 7 <= 6 <= 6"),
        ({"warmup": 1.0}, "warmup: must be below 1, not 1.0"),
        ({"dropout": -0.5}, "dropout: must be at least 0, not -0.5"),
        ({"betas": (0.9, 1.0)}, "betas: must be below 1, not 1.0"),
        ({"pairs": 0}, "pairs: must be at least 1, not 0"),
        ({"pair_rule": "two"}, "pair_rule: 'two' is not one of one, all, best_worst, same_teacher"),
        ({"attention": "flash"}, "attention: flash needs training.precision=bfloat16"),
        ({"backend": "trl", "workers": 2}, "backend: trl takes one worker and micro_batch"),
        ({"backend": "trl", "micro_batch": 3}, "backend: trl needs a batch_size that is a multiple of micro_batch"),
        ({"targets": ()}, "targets: name at least one module"),
    ],
)
def test_refused(make_config: Callable[..., TrainConfig], changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        make_config(**changes)


@pytest.mark.parametrize(("steps", "warmup"), [(40, 0.05), (7, 0.5), (10, 0.0), (1, 0.05), (2, 0.9), (3, 0.05)])
def test_schedule_is_that_of_transformers(make_config: Callable[..., TrainConfig], steps: int, warmup: float) -> None:
    config = make_config(steps=steps, run_steps=steps, report_step=1, warmup=warmup, learning_rate=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, steps)
    for step in range(1, steps + 1):
        assert config.rate(step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-15)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("steps", "warmup", "rates"),
    [
        (1, 0.05, [1.0]),
        (1, 0.0, [1.0]),
        (2, 0.05, [0.0, 1.0]),
        (2, 0.99, [0.0, 1.0]),
        (3, 0.99, [0.0, 0.5, 1.0]),
        (4, 0.0, [1.0, 0.8535533905932737, 0.5, 0.14644660940672627]),
    ],
)
def test_the_last_step_of_a_short_training_has_a_rate(
    make_config: Callable[..., TrainConfig], steps: int, warmup: float, rates: list[float]
) -> None:
    """The warm-up leaves a step, however its share is rounded: one step trains, at the full rate."""
    config = make_config(steps=steps, run_steps=steps, report_step=1, warmup=warmup, learning_rate=1.0)
    assert [config.rate(step) for step in range(1, steps + 1)] == pytest.approx(rates)
