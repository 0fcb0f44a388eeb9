"""TRL's own trainers as an oracle: the same rows, order, start and optimiser must give the same adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from methods import trainer, trl_backend
from methods.batch import Rollout
from methods.config import TrainConfig
from methods.logprobs import reference_logprobs
from methods.trainer import TrainingDiverged

Make = Callable[..., TrainConfig]


def deltas(folder: Path) -> torch.Tensor:
    """All B A of an adapter, stacked, float64."""
    tensors = {k: v.double() for k, v in load_file(folder / "adapter_model.safetensors").items()}
    names = sorted(k for k in tensors if "lora_A" in k)
    return torch.cat([(tensors[k.replace("lora_A", "lora_B")] @ tensors[k]).flatten() for k in names])


@pytest.mark.parametrize("method", ["sft", "dft", "dpo"])
def test_agreement(tiny_model: Path, rollouts: list[Rollout], make_config: Make, method: str, tmp_path: Path) -> None:
    """Ten steps of 8 units, micro-batches of 4, many passes for DPO, stopped before the horizon."""
    config = make_config(
        method, steps=12, run_steps=10, report_step=10, checkpoint_every=5, micro_batch=4, learning_rate=3e-3
    )
    reference = reference_logprobs(tiny_model, rollouts)
    summaries = []
    for backend in (trainer, trl_backend):
        out, work = tmp_path / backend.__name__ / "out", tmp_path / backend.__name__ / "work"
        work.mkdir(parents=True)
        summaries.append(backend.train(config, tiny_model, rollouts, out, reference=reference, work=work))
    ours, theirs = tmp_path / "methods.trainer" / "out", tmp_path / "methods.trl_backend" / "out"
    for part in ("adapter", "checkpoints/step-000005"):
        a, b = deltas(ours / part), deltas(theirs / part)
        assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.9999
        assert (a - b).norm() < 1e-3 * a.norm()
    for one, two in zip(*((f / "log.jsonl").read_text().splitlines() for f in (ours, theirs)), strict=True):
        one, two = json.loads(one), json.loads(two)
        assert one.keys() == two.keys()
        # TRL does not tell the first two; while B is 0 a margin's sign is that of a rounding error.
        left_out = {"nll_right", "nll_wrong"} | ({"reward_accuracy"} if one["step"] <= 2 else set())
        for key in one.keys() - left_out:
            assert two[key] == pytest.approx(one[key], rel=1e-3, abs=1e-5), key
    assert summaries[0].keys() == summaries[1].keys()
    assert {p.relative_to(ours) for p in ours.rglob("*")} == {p.relative_to(theirs) for p in theirs.rglob("*")}


@pytest.mark.parametrize("method", ["rft", "rift", "offline_grpo"])
def test_methods_trl_lacks(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, method: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"TRL has no trainer for {method}; set training.backend to native"):
        trl_backend.train(make_config(method), tiny_model, rollouts, tmp_path / "out", work=tmp_path)


def test_uneven_micro_batches_are_refused(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="TRL: batch_size 8 is no multiple of micro_batch 3"):
        trl_backend.train(make_config(micro_batch=3), tiny_model, rollouts, tmp_path / "out", work=tmp_path)


def test_divergence_and_global_generators(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    """As in the own backend: step 3 fails, what stood after step 2 is kept; TRL's seeding stays inside."""
    torch.manual_seed(4)
    before = torch.get_rng_state()
    with pytest.raises(TrainingDiverged) as caught:
        trl_backend.train(
            make_config(learning_rate=1e30), tiny_model, rollouts, tmp_path / "out", work=tmp_path / "work"
        )
    assert caught.value.step == 3 and len(caught.value.rows) == 8
    assert (tmp_path / "out" / "checkpoints" / "step-000002" / "adapter_config.json").exists()
    assert torch.equal(torch.get_rng_state(), before)
