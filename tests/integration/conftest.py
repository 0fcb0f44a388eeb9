"""One small study, whole, run once in this process and once on Ray, for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "configs" / "mini.yaml"


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
def mini() -> Path:
    """The small study's file."""
    return MINI


@pytest.fixture(scope="session")
def serial(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished serial run."""
    out = tmp_path_factory.mktemp("serial")
    done = orchestrator("run", str(mini), "--serial", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    return out
