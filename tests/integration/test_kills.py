"""Kills at chosen instants, a stop, a full disk: `run` to the end gives the same results."""

from __future__ import annotations

import importlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ROOT, forked_run, results

STORAGE = "execution.storage"


def deadly(module: str, owner: str, name: str, fits: str, at: int) -> None:
    """From now on this process is killed when a function is called for the n-th time with words that fit."""
    place = getattr(importlib.import_module(module), owner)
    function, calls = getattr(place, name), itertools.count(1)

    def call(*given: Any, **named: Any) -> Any:
        if fits in " ".join(map(str, given)) and next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)

    setattr(place, name, call)


@pytest.mark.parametrize(
    ("kinds", "how"),
    [
        # While the third state of some training is told of; between two shards; between the writing and the rename.
        (("base", "rollouts", "problems"), (STORAGE, "Folder", "keep", "train", 3)),
        (
            ("base", "rollouts", "problems", "reference", "train"),
            (STORAGE, "Folder", "keep", "evaluate", 2),
        ),
        (("base", "rollouts", "problems", "reference"), (STORAGE, "Folder", "publish", "train", 2)),
    ],
    ids=["mid-training", "mid-evaluation", "before-the-rename"],
)
def test_killed_at_a_chosen_instant(
    mini: Path, serial: Path, begun: Callable[..., Path], kinds: tuple[str, ...], how: tuple[str, str, str, str, int]
) -> None:
    out = begun(*kinds)
    killed = forked_run("run", str(mini), "--serial", "--out", str(out), first=partial(deadly, *how))
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    unfinished = [p for p in out.glob("partial/*/*") if p.is_dir()]
    assert len(unfinished) == 1, "one step was under way"
    done = forked_run("run", str(mini), "--serial", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended without releasing" in done.stdout, "the dead run's lease is taken over, said"
    assert results(out) == results(serial)


def test_a_stop_says_how_to_go_on(mini: Path, serial: Path, begun: Callable[..., Path]) -> None:
    out = begun("base", "rollouts", "problems", "reference")
    words = [sys.executable, "-m", "orchestrator", "run", str(mini), "--serial", "--out", str(out)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not list(out.glob("train/*/step.json")):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)  # the run needs the processor itself
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    again = told.strip().splitlines()[-1].partition("Go on with: python -m ")[2]
    assert again.startswith("orchestrator run ")
    assert not (out / "lease.json").exists()
    done = forked_run(*again.split()[1:])
    assert done.returncode == 0, done.stderr
    assert results(out) == results(serial)


def test_a_full_disk_loses_nothing(mini: Path, serial: Path, begun: Callable[..., Path]) -> None:
    """The kernel refuses to let any file grow beyond 20 kB: adapters cannot be written, and every training fails."""
    out = begun("base", "rollouts", "problems", "reference")

    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (20_000, 20_000))
    done = forked_run("run", str(mini), "--serial", "--out", str(out), first=limit)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "train/sft: FAILED" in done.stdout and "File too large" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    done = forked_run("run", str(mini), "--serial", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(out) == results(serial)
