"""Engines of several GPUs on a real Ray cluster of four made-up GPUs: placed, killed, given back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Engine steps that note when and where each attempt runs; some die at their first, in one of two ways.
PROGRAM = """
import json, os, pathlib, signal, sys, time
import ray
from execution.errors import WorkerLost
from execution.runner import DagRunner
from execution.step import Step, StepKind
from execution.store import open_store
from orchestrator.cluster.connection import join
from orchestrator.cluster.executor import RayExecutor
from orchestrator.config.study import Placement

notes = pathlib.Path(sys.argv[1])

def work(context):
    name, how = context.runtime["name"], context.runtime["dies"]
    tried = len(list(notes.glob(f"{name}-*")))
    note = {"name": name, "gpus": ray.get_gpu_ids(), "pid": os.getpid(), "begun": time.time()}
    note["seen"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    (notes / f"{name}-{tried}").write_text(json.dumps(note | {"ended": time.time() + 600}))
    beside = {"two": "killed", "killed": "two"}.get(name)  # these two fit at once: each waits until the other runs
    until = time.time() + (60 if beside and not tried else 0)
    while time.time() < until and not list(notes.glob(f"{beside}-*")):
        time.sleep(0.1)
    time.sleep(0.6)
    (notes / f"{name}-{tried}").write_text(json.dumps(note | {"ended": time.time()}))
    if how == "killed" and not tried:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "rank" and tried < 2:
        raise WorkerLost("a process of the engine has died")

def step(name, gpus, dies=""):
    engine = {"kind": "vllm"} | ({"tensor_parallel": gpus} if gpus > 1 else {})
    return Step(kind, name, {"engine": engine}, {}, {"name": name, "dies": dies})

kind = StepKind("sample", 1, lambda planned: [], work, runs_as=lambda step: "engine")
init = ray.init
ray.init = lambda **how: init(**how | {"num_cpus": 4, "num_gpus": 4})
join(None)
store, said = open_store(notes / "store"), []
steps = [step("two", 2), step("killed", 2, "killed"), step("four", 4), step("one", 1), step("rank", 2, "rank")]
steps += [step("other", 1), step("eight", 8)]
executor = RayExecutor(store, Placement(), said.append)
executor.close = lambda: None  # what Ray has free is looked at first
outcome = DagRunner(steps, store, said.append).run(lambda: executor)
until = time.time() + 30
while ray.available_resources().get("GPU") != 4 and time.time() < until:
    time.sleep(0.2)
told = {"free": ray.available_resources().get("GPU"), "groups": len(ray.util.placement_group_table()), "said": said}
print(json.dumps(told | {"made": sorted(outcome.made), "failed": outcome.failed}))
ray.shutdown()
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the program told, and the notes of all attempts."""
    notes, program = tmp_path_factory.mktemp("notes"), tmp_path_factory.mktemp("program") / "placed.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), str(notes)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), [json.loads(f.read_text()) for f in notes.glob("*-*")]


def test_no_gpu_serves_two_engines_at_once(ran: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    _, attempts = ran
    spans = {"two": 2, "killed": 2, "four": 4, "one": 1, "rank": 2, "other": 1}
    for attempt in attempts:
        assert len(attempt["gpus"]) == spans[attempt["name"]]
        assert attempt["seen"] == ",".join(map(str, attempt["gpus"])), "vLLM's processes share these out"
    together = [(a, b) for a, b in combinations(attempts, 2) if a["begun"] < b["ended"] and b["begun"] < a["ended"]]
    assert all(not set(a["gpus"]) & set(b["gpus"]) for a, b in together)
    assert together, "engines run side by side"


def test_an_engine_that_dies_is_placed_again_and_gives_its_gpus_back(
    ran: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    """Killed as a whole, or one process of it has died: in both ways its actor is another one afterwards."""
    told, attempts = ran
    assert told["made"] == [f"sample/{name}" for name in ("four", "killed", "one", "other", "rank", "two")]
    for name, tries in {"killed": 2, "rank": 3}.items():
        pids = [attempt["pid"] for attempt in attempts if attempt["name"] == name]
        assert len(set(pids)) == tries
        assert sum(line.startswith(f"sample/{name}: its worker died (") for line in told["said"]) == tries - 1
    assert told["free"] == 4 and told["groups"] == 0


def test_an_engine_too_large_for_every_node_is_told_and_does_not_hold_the_run(
    ran: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    told, attempts = ran
    line = "its engine spans 8 GPUs of one node, and the cluster's largest has 4 now"
    assert told["failed"] == {"sample/eight": line}
    assert not any(attempt["name"] == "eight" for attempt in attempts)
