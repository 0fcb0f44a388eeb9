"""Passes over the base on a GPU: log-probabilities, KL, features and activation products of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from analysis.function.activations import input_products
from analysis.function.forward import attached, completion_hidden, completion_scores, features
from methods.data.batch import Rollout
from methods.training.logprobs import reference_logprobs
from models.adapter import Factors, load_factors
from tests.conftest import Agreement

QUERY = "model.layers.2.self_attn.q_proj"


@pytest.fixture(scope="module")
def models(model_dir: Path) -> dict[str, PreTrainedModel]:
    return {
        device: AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).to(device).eval()
        for device in ("cpu", "cuda")
    }


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory, model_dir: Path, write_adapter: Callable[..., Path]) -> dict:
    return load_factors(write_adapter(tmp_path_factory.mktemp("gpu-adapter"), model_dir, seed=3))


def rows(rollouts: list[Rollout]) -> list[tuple[list[int], list[int]]]:
    return [(list(r.prompt_ids), list(r.completion_ids)) for r in rollouts[:12]]


def test_reference_logprobs(model_dir: Path, rollouts: list[Rollout], agreement: Agreement) -> None:
    cpu, gpu = (reference_logprobs(model_dir, rollouts[:12], device=device) for device in ("cpu", "cuda"))
    for i in range(12):
        agreement("reference log-probabilities, GPU and CPU", gpu[i], cpu[i], 1e-4)


def test_scores_and_features(
    models: dict[str, PreTrainedModel], delta: dict[str, Factors], rollouts: list[Rollout], agreement: Agreement
) -> None:
    found = {}
    for device, model in models.items():
        base = completion_hidden(model, rows(rollouts))
        with attached(model, delta):
            scores = completion_scores(model, rows(rollouts), reference=base)
            seen = features(model, [prompt for prompt, _ in rows(rollouts)], modules=[QUERY])
        found[device] = (scores, seen)
    (scores, seen), (gpu_scores, gpu_seen) = found["cpu"], found["cuda"]
    agreement("nll, GPU and CPU", [s.nll for s in gpu_scores], [s.nll for s in scores], 1e-5)
    agreement("KL to the base, GPU and CPU", [s.kl for s in gpu_scores], [s.kl for s in scores], 1e-3)
    for layer in seen["hidden"]:
        agreement("hidden states, GPU and CPU", gpu_seen["hidden"][layer], seen["hidden"][layer], 1e-4)
    agreement("a module's output, GPU and CPU", gpu_seen["modules"][QUERY], seen["modules"][QUERY], 1e-4)


def test_activation_products(
    models: dict[str, PreTrainedModel], delta: dict[str, Factors], rollouts: list[Rollout], agreement: Agreement
) -> None:
    (cpu, tokens), (gpu, gpu_tokens) = (
        input_products(models[device], rows(rollouts), [delta], list(delta)) for device in ("cpu", "cuda")
    )
    assert tokens == gpu_tokens
    for name in cpu:
        agreement("activation products, GPU and CPU", gpu[name], cpu[name], 1e-4)
