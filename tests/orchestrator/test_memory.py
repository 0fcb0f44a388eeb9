"""The memory that a plan states for a training: by hand for the reference study, and beside a training's real peak."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from execution.memory import PeakMemory
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.trainer import train
from orchestrator.bases.random_weights import RandomBase
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning.cost import estimate
from orchestrator.planning.memory import GIB, Memory, seen_line

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WEIGHTS = 36 * (2 * 2560 * 4096 + 2 * 2560 * 1024 + 3 * 2560 * 9728) + 151936 * 2560
ADAPTER = 36 * 32 * (2 * (4096 + 2560) + 2 * (1024 + 2560))


def memory_of(name: str, *overrides: str) -> Memory:
    cost = estimate(load_study(CONFIGS / f"{name}.yaml", overrides))
    assert cost is not None and cost.training_gib == cost.memory.device
    return cost.memory


def test_the_reference_studys_memory_by_hand() -> None:
    memory = memory_of("qwen3-4b")
    assert memory.weights * GIB == 2 * WEIGHTS and memory.adapter * GIB == 16 * ADAPTER
    tokens = 4 * 2 * (1024 + 3072)  # four pairs of DPO, at the limits
    assert memory.kept * GIB == 36 * tokens * 2560 * 2  # each layer's input, bfloat16
    assert memory.passing * GIB == 64 * tokens * 2560 * 2  # a layer's activations, more than 1 024 positions' logits
    assert memory.device == memory.weights + memory.adapter + memory.kept + memory.passing
    assert memory.cpu == memory.device + 0.75
    one = memory_of("qwen3-4b", "training.micro_batch=1", "training.head_chunk=2048")
    assert one.kept == memory.kept / 4
    assert one.passing * GIB == 2048 * 151936 * 16  # of one pair so many logits are the larger part
    assert memory_of("qwen3-4b", "training.micro_batch=1", "training.head_chunk=64").passing == memory.passing / 4
    plain = memory_of("qwen3-4b", "training.gradient_checkpointing=false")
    assert plain.kept * GIB == 36 * 44 * tokens * 2560 * 2  # all layers' activations


def test_a_trainings_peak_is_what_is_estimated(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    """With checkpointing and many logits a chunk, as in the reference study."""
    shape = {"layers": 2, "hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "intermediate": 1024,
             "vocabulary": 40_000}  # fmt: skip
    study = make_study(
        f"base={{kind: random, precision: float32, shape: {shape}}}", "training.head_chunk=1024",
        "training.gradient_checkpointing=true", "training.micro_batch=64",
        "training.batch_size=64", "prompt.max_prompt_tokens=8", "prompt.max_answer_tokens=56",
        "training.precision=float32", "engine.max_model_len=1024", "methods={sft: }", "replicas=[]", "sweep=null",
    )  # fmt: skip
    cost = estimate(study)
    assert cost is not None
    config = study.base.step_config({})
    folder, _ = RandomBase.make(config, {}, tmp_path / "base", lambda line: None)
    program = f"from tests.orchestrator.test_memory import grown; grown({str(folder)!r})"
    done = subprocess.run(  # this process may reuse memory that other tests have left
        [sys.executable, "-c", program], cwd=CONFIGS.parent, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(cost.memory.device, rel=0.2)


def grown(folder: str) -> None:
    """Print by how many GiB a training of 64 rows raises the peak memory of a process that has trained short rows."""
    base = Path(folder)
    rows = [Rollout([5 + i % 50] * 8, [7] * 56, 1.0, i) for i in range(64)]
    settings = TrainConfig(
        method="sft", rank=8, init_seed=0, order_seed=0, base_name="random", steps=1, batch_size=64, micro_batch=64,
        precision="float32", gradient_checkpointing=True, head_chunk=1024, warmup=0.0,
    )  # fmt: skip
    for work in ("first", "second"):
        (base.parent / work).mkdir()
    short = [Rollout([5] * 4, [7] * 4, 1.0, i) for i in range(64)]
    train(settings, base, short, base.parent / "warm", work=base.parent / "first")  # loads libraries
    gc.collect()
    peak = PeakMemory()
    before = peak.seen()["peak_gib"]
    train(settings, base, rows, base.parent / "out", work=base.parent / "second")
    print(peak.seen()["peak_gib"] - before)


def test_the_line_of_a_run_names_the_training_that_took_most() -> None:
    memory = Memory(weights=1.0, adapter=0.1, kept=0.4, passing=2.0, process=0.7)
    steps = [
        {"step": "base/b", "peak_gib": 9.0}, {"step": "train/sft", "peak_gib": 3.94}, {"step": "train/old"},
        {"step": "train/dpo", "peak_gib": 4.31},
    ]  # fmt: skip
    line = "memory of a training's process: 4.3 GiB at most (train/dpo), 4.2 estimated"
    assert seen_line(memory, {"steps": steps}) == line
    steps[1]["gpu_peak_gib"] = 3.6
    line = "memory of a training's GPU: 3.6 GiB at most (train/sft), 3.5 estimated"
    assert seen_line(memory, {"steps": steps}) == line
    assert seen_line(memory, {"steps": steps[:1]}) is None
