"""A base that two workers of Ray Train share out: the update of the serial run, which holds it whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.conftest import ROOT

RATE = 3e-5
SETTINGS = (
    f"methods={{dpo: {{learning_rate: {RATE}}}}}", "sweep=null", "replicas=[]", "norm_matched=false",
    "analysis.connectivity.pairs=[]", "training.workers=2", "training.shard_base=true",
)  # fmt: skip


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
def test_ray_train_shares_a_base_out(mini: Path, serial: Path, begun: Callable[..., Path]) -> None:
    """DPO, with its reference, and a look at held-out rows where it ends."""
    out = begun("base", "rollouts", "problems", "reference")
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    words = [sys.executable, "-m", "orchestrator", "run", str(mini), *sets, "--out", str(out)]
    log, until = out.with_name("log"), time.monotonic() + 300
    with log.open("w") as said, subprocess.Popen(
        words, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:  # fmt: skip
        try:
            while not (trained := list(out.glob("train/dpo-*/step.json"))):
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # what else the study holds is not waited for
    (alone,) = [path for path in serial.glob("train/dpo-*/step.json") if "-lr" not in path.parent.name]
    one, two = (load_file(p.parent / "adapter" / "adapter_model.safetensors") for p in (alone, trained[0]))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=RATE / 100)
    assert any((value != 0).any() for name, value in two.items() if "lora_B" in name)
