"""What needs a GPU: skipped where torch sees none. Only torch, Transformers, PEFT and scipy are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.determinism import ENVIRONMENT

os.environ.update(ENVIRONMENT)  # before anything multiplies, as a study does


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of 4 layers, hidden 512, vocabulary 8192: large enough that kernels and memory are a GPU's."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("gpu") / "model"
    config = Qwen3Config(
        vocab_size=8192, hidden_size=512, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).float().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rollouts() -> list[Rollout]:
    """Sixteen problems of four rollouts, 60 to 320 tokens, right and wrong ones of each."""
    rng = np.random.default_rng(5)
    rows = []
    for group in range(16):
        prompt = rng.integers(2, 8192, int(rng.integers(20, 60))).tolist()
        for k in range(4):
            completion = [*rng.integers(2, 8192, int(rng.integers(40, 260))).tolist(), 1]
            rows.append(Rollout(prompt, completion, float(k % 2), group))
    return rows


@pytest.fixture(scope="session")
def make_config(make_config: Callable[..., TrainConfig]) -> Callable[..., TrainConfig]:
    """A function ``(method, **changes)`` for a training of eight steps of sixteen units."""
    larger = {
        "learning_rate": 1e-3, "steps": 8, "report_step": 8, "run_steps": 8, "batch_size": 16, "rank": 16, "alpha": 32,
        "base_name": "someone/random",
    }  # fmt: skip
    return lambda method="sft", **changes: make_config(method, **(larger | changes))
