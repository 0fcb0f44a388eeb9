"""Gradients that are rounding alone are told from small ones, step by step, and an update made of them is marked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.logprobs import reference_logprobs
from methods.training.lora import attach
from methods.training.noise import floor, token_gradient
from methods.training.trainer import train
from models.base import load
from models.logprobs import completion_logps

Make = Callable[..., TrainConfig]


def answers(changed: int | None) -> list[Rollout]:
    """Eight problems of a right and a wrong answer of 32 tokens: equal, or with one token ``changed`` in the wrong."""
    rng = np.random.default_rng(0)
    rows = []
    for group in range(8):
        prompt, answer = rng.integers(2, 64, 4).tolist(), rng.integers(2, 64, 32).tolist()
        other = list(answer)
        if changed is not None:
            other[changed] = 2 + (other[changed] - 1) % 62
        rows += [Rollout(prompt, answer, 1.0, group), Rollout(prompt, other, 0.0, group)]
    return rows


CASES = {
    "weights that cancel on equal rows": ("offline_grpo", {"bias": 0.0}, None, True),
    "weights that cancel but for one token": ("offline_grpo", {"bias": 0.0}, 31, False),
    "a bias is left": ("offline_grpo", {}, None, False),
    "rift of opposite weights": ("rift", {"form": "source", "wrong": -1.0, "probability": "token"}, None, False),
    "pairs that differ in their last token": ("dpo", {}, 31, False),
    "likelihood": ("sft", {}, None, False),
}


@pytest.mark.parametrize(("method", "settings", "changed", "noise"), CASES.values(), ids=CASES)
def test_what_is_marked(
    tiny_model: Path, make_config: Make, tmp_path: Path, method: str, settings: dict, changed: int | None, noise: bool
) -> None:
    rows = answers(changed)
    config = make_config(method, settings=settings, batch_size=16, micro_batch=16, steps=3, run_steps=3, report_step=3)
    reference = reference_logprobs(tiny_model, rows, precision="float32")
    summary = train(config, tiny_model, rows, tmp_path / "out", reference=reference, work=tmp_path / "work")
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    if method == "dpo":  # eight pairs: half a step's units
        assert summary["view_units"] == 8
    assert [line["noise"] for line in log] == [noise] * 3
    assert (summary["noise_steps"], summary["noise"], summary["equal_pairs"]) == (3 * noise, noise, 0)
    ratios = [line["grad_norm"] / line["grad_floor"] for line in log]
    assert max(ratios) < 0.5 if noise else min(ratios) > 100


def test_no_weight_at_all_is_no_gradient(tiny_model: Path, make_config: Make, tmp_path: Path) -> None:
    """Every problem all right or all wrong, and no bias: each advantage is 0."""
    rows = [Rollout(row.prompt_ids, row.completion_ids, float(row.group % 2), row.group) for row in answers(3)]
    config = make_config("offline_grpo", settings={"bias": 0.0})
    summary = train(config, tiny_model, rows, tmp_path / "out", work=tmp_path / "work")
    assert summary["noise"] and summary["noise_steps"] == 6 and summary["b_norm"] == 0


def test_equal_pairs_are_counted_in_the_summary(tiny_model: Path, make_config: Make, tmp_path: Path) -> None:
    rows = [*answers(None)[:6], *answers(5)[6:]]
    reference = reference_logprobs(tiny_model, rows, precision="float32")
    config = make_config("dpo", run_steps=2, report_step=2)
    summary = train(config, tiny_model, rows, tmp_path / "out", reference=reference, work=tmp_path / "work")
    assert (summary["equal_pairs"], summary["view_units"], summary["noise_steps"]) == (3, 5, 0)


def test_the_size_of_a_tokens_gradient(tiny_model: Path) -> None:
    """Of one token exactly; of several within a third of the root mean square, which is taken here token by token."""
    adapter = attach(load(tiny_model, "float32", "sdpa"), ("q_proj", "v_proj"), 4, 8, 0.0, 1)
    row = answers(None)[0]

    def norms(rollout: Rollout) -> list[float]:
        logp, _ = completion_logps(adapter.model, [rollout.tokens], 1024)
        parameters = list(adapter.parameters.values())
        each = [torch.autograd.grad(value, parameters, retain_graph=True) for value in logp[0]]
        return [math.sqrt(sum(part.square().sum().item() for part in parts)) for parts in each]

    single = Rollout(row.prompt_ids, row.completion_ids[:1], 1.0, 0)
    assert token_gradient(adapter, single, 1024) == pytest.approx(norms(single)[0], rel=1e-5)
    expected = math.sqrt(sum(value**2 for value in norms(row)) / 32)
    assert token_gradient(adapter, row, 1024) == pytest.approx(expected, rel=1 / 3)
    assert all(parameter.grad is None for parameter in adapter.parameters.values())
    assert floor(2.0, 32.0, 8.0) == 2.0**-20
