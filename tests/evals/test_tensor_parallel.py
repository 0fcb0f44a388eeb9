"""A model over several processes of one engine, here two on a CPU: vLLM shards it as it does over GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from evals.engines import Sampling, open_engine
from evals.engines.settings import EngineConfig, EngineSettings
from evals.engines.transformers import TransformersEngine
from evals.engines.vllm import VllmEngine
from execution.errors import WorkerLost

ROOT = Path(__file__).resolve().parents[2]
# An engine's process with a rank, both of which only wait.
ENGINE = """
import multiprocessing, sys, time

def rank(path):
    from evals.engines.ranks import Rank
    class Worker: ...
    Worker = type("Worker", (Worker, Rank), {})
    Worker(1, rank=0)
    open(path, "w").close()
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=rank, args=(sys.argv[1],))
    process.start()
    print(process.pid, flush=True)
    time.sleep(600)
"""


def gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    return not psutil.wait_procs(list(processes), timeout=seconds)[1]


def test_two_ranks_answer_as_one_model_and_their_deaths_are_told(served_model: Path, prompts: list[list[int]]) -> None:
    """Greedy answers against Transformers; then a rank is killed while the engine answers."""
    asked, greedy = [*prompts[:3], *prompts[7:9]], Sampling(max_tokens=4)
    environment = dict(os.environ)
    engine = open_engine("vllm", served_model, precision="float32", max_model_len=64, cache_gib=0.1, tensor_parallel=2)
    assert isinstance(engine, VllmEngine) and dict(os.environ) == environment
    ranks = [p for p in psutil.Process().children(recursive=True) if "Worker_TP" in " ".join(p.cmdline())]
    assert len(ranks) == 2
    reference = TransformersEngine(
        served_model, EngineConfig(kind="transformers", precision="float32", max_model_len=64)
    )
    assert engine.generate(asked, greedy) == reference.generate(asked, greedy)

    threading.Timer(0.5, ranks[1].send_signal, [signal.SIGKILL]).start()
    with pytest.raises(WorkerLost, match="holds a shard of the model"):
        for _ in range(200):
            engine.generate(prompts, Sampling(max_tokens=30))
    engine.close()
    assert gone(ranks, 30)


def test_a_rank_ends_with_its_engine_even_while_it_loads(tmp_path: Path) -> None:
    """vLLM's own watch begins once the model is loaded, which takes minutes for a large one."""
    program, loading = tmp_path / "engine.py", tmp_path / "loading"
    program.write_text(ENGINE)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(program), str(loading)], env=environment, stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        rank = psutil.Process(int(engine.stdout.readline()))
        until = time.monotonic() + 60
        while not loading.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        engine.kill()
        assert gone([rank], 5)


def test_what_cannot_be_sharded_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tensor_parallel: 2 needs engine\.kind=vllm: "):
        EngineSettings(kind="transformers", tensor_parallel=2)
    with pytest.raises(ValueError, match="tensor_parallel: the shards of a model take no adapters: swapped"):
        EngineSettings(kind="vllm", precision="float32", adapters="swapped", tensor_parallel=2)
    assert EngineSettings(precision="float32", tensor_parallel=2).adapters_in("vllm") == "lora"
