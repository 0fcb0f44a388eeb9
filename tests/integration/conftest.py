"""One small study, whole, run once in this process and once on Ray, for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDY = """
extends: {root}/configs/tiny.yaml
name: mini
base:
  steps: 80
  batch: 32
  learning_rate: 6e-3
  largest: 3
  threads: 1
  shape: {{layers: 2, hidden: 64, heads: 4, kv_heads: 2, head_dim: 16, intermediate: 128}}
rollouts: {{problems: {{draw: 40, settings: {{largest: 3}}}}, shard: 20}}
training: {{steps: 6, resume_every: 2}}
replicas: [{{method: sft, order_seed: 43}}]
sweep: {{learning_rates: [3e-5, 3e-4]}}
engine: {{kind: transformers}}
evaluation:
  tasks: [{{task: arithmetic, split: test, draw: 30, seed: 1, settings: {{largest: 3}}}}]
  shard: 30
analysis: {{chance_draws: 2, connectivity: {{rows: 8, points: 3}}, similarity: {{prompts: 24, groups: 4}}}}
"""


def orchestrator(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a user calls it."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study's file: a base that learns numbers up to 3 within seconds."""
    path = tmp_path_factory.mktemp("study") / "mini.yaml"
    path.write_text(STUDY.format(root=ROOT))
    return path


@pytest.fixture(scope="session")
def serial(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished serial run."""
    out = tmp_path_factory.mktemp("serial")
    done = orchestrator("run", str(mini), "--serial", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    return out
