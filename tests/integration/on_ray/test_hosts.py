"""A cluster of two hosts that share nothing but a store: the results of a serial run, though one is cut off meanwhile.

``benchmarks/hosts.py`` has the longer cases.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.hosts import lack, start_ray, two_hosts
from tests.integration.conftest import ROOT, handed_over, results

CUT = 5.0  # seconds
LEFT = ("evaluate/dft", "losses/dft", "features/dft", "features/rft")  # no training: those take Ray Train a minute


@pytest.mark.skipif(lack() is not None, reason=f"two hosts on one machine: {lack()}")
def test_a_host_that_is_cut_off_meanwhile(mini: Path, serial: Path, tmp_path: Path) -> None:
    """The second host, which has none of the code, is cut off when steps begin."""
    out = tmp_path / "out"
    handed_over(serial, out, *LEFT)
    words = [sys.executable, "-m", "orchestrator", "run", str(mini), "--out", str(out)]
    with two_hosts() as (head, second):
        address = start_ray((head, second), {})
        run = head.words(*words, "--address", address, folder=ROOT)
        told = []
        with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            limit = threading.Timer(300, process.kill)
            limit.start()
            assert process.stdout is not None
            for line in process.stdout:
                told.append(line)
                if "2 nodes read and write" in line:
                    second.cable("down")
                    threading.Timer(CUT, second.cable, ["up"]).start()
            limit.cancel()
            code = process.wait()
    assert code == 0, "".join(told)
    assert results(out) == results(serial)
