"""Measures the overhead of running a study, on real runs.

    python benchmarks/orchestration.py [gpus] [cells] [default] [memory]

gpus     a cluster with eight logical GPUs (CPU devices): trainings that ran at once, each on its own GPU id
cells    sixteen small trainings on this machine's CPUs: wall time over (sum of their own work / slots)
default  the default study: the sum of all start-up over the wall time
memory   thirty-six trainings: the driver's memory as cells (trainings, evaluations) finish

Without arguments all four in turn: about half an hour on two cores. Run nothing else at the same time.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
RAY = str(Path(sys.executable).with_name("ray"))
MINI, TINY = ROOT / "configs" / "mini.yaml", ROOT / "configs" / "tiny.yaml"
METHODS = ("sft", "rft", "dft", "rift", "offline_grpo", "dpo")


def run(study: Path, out: Path, *words: str, **environment: str) -> float:
    """Wall-clock seconds of a run; ends the benchmark if it fails."""
    begun = time.monotonic()
    done = subprocess.run(command(study, out, *words), cwd=ROOT, env=os.environ | environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout)
    return time.monotonic() - begun


def command(study: Path, out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", "run", str(study), "--out", str(out), *words]


def settings(**values: object) -> list[str]:
    """``--set`` arguments; two underscores stand for a dot."""
    return [w for name, value in values.items() for w in ("--set", f"{name.replace('__', '.')}={json.dumps(value)}")]


def times(out: Path, *kinds: str) -> dict[str, dict[str, float | str]]:
    """The recorded times of each finished step, by kind, name and key."""
    paths = [path for path in out.glob("times/*/*.json") if not kinds or path.parent.name in kinds]
    return {f"{path.parent.name}/{path.stem}": json.loads(path.read_text()) for path in paths}


def replicas(count: int, *methods: str) -> list[dict[str, object]]:
    """``count`` replicas with other orders of rows, over the methods in turn."""
    return [{"method": methods[i % len(methods)], "order_seed": 43 + i // len(methods)} for i in range(count)]


@contextmanager
def cluster(**resources: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Start a one-node cluster on loopback; yields its address and the environment for a driver."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's setting for staying on loopback
    }
    words = [f"--{name.replace('_', '-')}={value}" for name, value in resources.items()]
    node = subprocess.Popen(
        [RAY, "start", "--head", "--block", f"--port={port}", "--include-dashboard=false", *words],
        env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if node.poll() is not None or time.monotonic() > until:
                    raise SystemExit("the cluster does not start") from None
                time.sleep(0.5)
        time.sleep(5)  # until its one node has joined itself
        yield f"127.0.0.1:{port}", environment
    finally:
        for pid in psutil.pids():
            try:
                if os.getsid(pid) == node.pid:
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        node.wait()


def gpus(folder: Path) -> None:
    """Six trainings and two of the sweep's trials, long enough to overlap once all have started."""
    words = settings(training__steps=800, sweep__learning_rates=[3e-5, 1e-4, 3e-4], replicas=[])
    with cluster(num_gpus=8) as (address, environment):
        wall = run(MINI, folder, *words, "--address", address, **environment)
    trainings = times(folder, "train")
    starts = {title: t["started"] for title, t in trainings.items()}
    at_once = {
        title: [(other, t["gpus"]) for other, t in trainings.items() if t["started"] <= now < t["ended"]]
        for title, now in starts.items()
    }
    fullest = max(at_once.values(), key=len)
    ids = [gpu for _, gpu in fullest]
    print(f"gpus: {len(fullest)} trainings at once on GPUs {', '.join(sorted(map(str, ids)))} (target: 8 at once)")
    for title, t in sorted(trainings.items(), key=lambda pair: pair[1]["started"]):
        first = min(starts.values())
        print(f"    {title:<28} GPU {t['gpus']}  from {t['started'] - first:6.1f} to {t['ended'] - first:6.1f} s")
    print(f"    each on its own GPU: {'yes' if len(set(ids)) == len(ids) else 'NO'}; the whole run {wall:.0f} s")


def cells(folder: Path) -> None:
    """Print the time of sixteen trainings and their measurements, with base and rollouts already finished."""
    few = settings(replicas=[], sweep=None)
    run(TINY, folder, "--serial", *few, *settings(methods={"sft": {}}, training__steps=1,
                                                  analysis__connectivity__pairs=[]))  # fmt: skip
    before = times(folder)
    words = settings(replicas=replicas(8, "sft", "rft", "rift", "offline_grpo"))
    wall = run(TINY, folder, *words)
    made = {name: t for name, t in times(folder).items() if name not in before}
    trainings = {name: t for name, t in made.items() if name.startswith("train/")}
    slots = os.cpu_count() or 1

    def own(steps: dict[str, dict[str, float | str]]) -> float:
        return sum(float(t["seconds"]) - float(t["startup_seconds"]) for t in steps.values())

    from_first = min(float(t["started"]) - float(t["startup_seconds"]) for t in trainings.values())
    span = max(float(t["ended"]) for t in trainings.values()) - from_first
    alone, whole = span / own(trainings) * slots, wall / own(made) * slots
    print(f"cells: {len(trainings)} trainings, {slots} slots (target: at most 1.3)")
    print(f"    first placed to last done: {span:.0f} s / ({own(trainings):.0f} s / {slots}) = {alone:.2f}")
    print(f"    the whole run, all {len(made)} steps: {wall:.0f} s / ({own(made):.0f} s / {slots}) = {whole:.2f}")


def default(folder: Path) -> None:
    """Print the share of start-up times in the wall time, from the run's provenance."""
    run(TINY, folder)
    provenance = json.loads((folder / "report" / "provenance.json").read_text())
    startup = sum(step["startup_seconds"] or 0.0 for step in provenance["steps"] if not step["cached"])
    wall = provenance["wall_seconds"]
    print(f"default: start-up {startup:.0f} s of {wall:.0f} s wall time = {startup / wall:.0%} (target: at most 25 %)")


def memory(folder: Path) -> None:
    """Print the driver's memory, sampled every 0.5 s, and its slope over finished cells (trainings, evaluations).

    Ray and the allocator take a few hundred KiB at a few moments, most of them before the second cell. The slope is the
    repeated median (Siegel 1982), which such jumps do not affect and growth with each cell does.
    """
    words = settings(replicas=replicas(29, *METHODS[:5]))
    run_ = subprocess.Popen(command(MINI, folder, *words), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    driver, seen = psutil.Process(run_.pid), []
    while run_.poll() is None:
        try:
            held = driver.memory_info()
            seen.append((len(times(folder, "train", "evaluate")), (held.rss - held.shared) / 2**20))
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            break
        time.sleep(0.5)
    if run_.wait():
        raise SystemExit("the run failed")
    trainings, cells_ = len(times(folder, "train")), len(times(folder, "train", "evaluate"))
    running = [(done, held) for done, held in seen if 0 < done < cells_]
    last = dict(running)  # one value per count, or the longest wait would dominate
    by_cell = stats.siegelslopes(list(last.values()), list(last)).slope * 1024
    quarters = [running[int(share * (len(running) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]
    print(f"memory: {trainings} trainings; the driver's own memory by number of finished cells (target: no growth)")
    print("    " + ", ".join(f"{done}: {held:.2f} MiB" for done, held in quarters) + f"; {by_cell:+.2f} KiB per cell")


def main(words: list[str]) -> None:
    parts = {"gpus": gpus, "cells": cells, "default": default, "memory": memory}
    if unknown := set(words) - parts.keys():
        raise SystemExit(f"{unknown.pop()}: one of {', '.join(parts)}")
    for name in words or parts:
        with tempfile.TemporaryDirectory(prefix=f"orchestration-{name}-", ignore_cleanup_errors=True) as folder:
            parts[name](Path(folder) / "out")


if __name__ == "__main__":
    main(sys.argv[1:])
