"""Studies on Ray whose driver, workers or engine are killed: what a serial run gives."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet

from execution.execute import execute
from execution.storage import storage_of
from execution.store import open_store
from orchestrator.cluster.session import processes
from orchestrator.config.study_file import load_study
from orchestrator.planning.plan import make_plan
from orchestrator.planning.resolve import gather
from orchestrator.runtime.engines import Engines
from orchestrator.steps.evaluate import VERDICTS
from tests.integration.conftest import ROOT, TITLES, UNFINISHED, committed, finished, handed_over, orchestrator, results
from tests.object_store import connected, object_store


def test_ray_gives_the_same_bytes_after_a_kill(mini: Path, serial: Path, tmp_path: Path) -> None:
    """The run is killed, with all its workers, when a training has begun; then taken up to its end."""
    out = tmp_path / "ray"
    words = [sys.executable, "-m", "orchestrator", "run", str(mini), "--out", str(out)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 600
        while not list(out.glob("train/*/step.json")):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)  # the run needs the processor itself
        os.killpg(process.pid, signal.SIGKILL)
    before = committed(out)
    assert before and finished(out) != set(TITLES)
    done = orchestrator("run", str(mini), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    after = committed(out)
    assert {path: after[path] for path in before} == before, "a finished step was made again"
    assert finished(out) == set(TITLES)
    assert (out / "report" / "results.json").read_bytes() == (serial / "report" / "results.json").read_bytes()


ALONE = (  # evaluated on many small shards, each problem twice
    "methods={sft: null}", "sweep=null", "replicas=[]", "norm_matched=false", "analysis.connectivity.pairs=[]",
    "evaluation.tasks.0.draw=90", "evaluation.shard=3", "evaluation.samples=2", "evaluation.temperature=1",
)  # fmt: skip


def test_an_evaluation_whose_engine_is_killed_five_times_loses_and_doubles_nothing(
    mini: Path, begun: Callable[..., Path], tmp_path: Path
) -> None:
    """``kill -9`` of the engine's actor, each time after it has answered at least one shard more."""
    whole, out = tmp_path / "whole", begun("base", "rollouts")
    shutil.copytree(out, whole)
    base = undisturbed(mini, whole)
    sets = [word for setting in ALONE for word in ("--set", setting)]
    words = [sys.executable, "-m", "orchestrator", "run", str(mini), *sets, "--out", str(out)]
    kills, answered, until = 0, 0, time.monotonic() + 800
    log = tmp_path / "log"
    with log.open("w") as said, subprocess.Popen(
        words, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:  # fmt: skip
        try:
            while kills < 5 or not (out / base / "step.json").exists():
                assert process.poll() is None and time.monotonic() < until, f"{kills} kills: {log.read_text()}"
                shards = len(list(out.glob("partial/evaluate/base-*/work/arithmetic-*.json")))
                if kills < 5 and shards > answered and (actor := engine_of(process.pid)):
                    answered, kills = shards, kills + 1
                    os.kill(actor, signal.SIGKILL)
                time.sleep(0.01)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # what else the study holds is not waited for
    assert log.read_text().count("evaluate/base: its worker died") == 5
    rows, expected = (pyarrow.parquet.read_table(root / base / VERDICTS).to_pylist() for root in (out, whole))
    assert rows == expected
    assert len(rows) == 180 == len({(row["id"], row["sample"]) for row in rows})


def undisturbed(mini: Path, out: Path) -> str:
    """The base's evaluation, performed here and alone: the name of its folder in the store at ``out``."""
    study = load_study(mini, list(ALONE))
    steps = {step.title: step for step in make_plan(study, gather(study, out, online=False))}
    store = open_store(out)
    for title in ("problems/evaluation", "evaluate/base"):
        execute(steps[title], store, Engines())
    return steps["evaluate/base"].folder


def engine_of(session: int) -> int | None:
    """The process of the engine's actor that is answering now."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and process.cmdline()[:1] == ["ray::EngineActor.perform"]:
                return process.pid
    return None


def test_an_object_store_gives_the_same_results(mini: Path, serial: Path, tmp_path: Path) -> None:
    """On Ray, through a real S3 server, its driver killed midway, whose cluster the next run ends.

    Three trainings, what reads them, and all that measures many adapters.
    """
    out = tmp_path / "out"
    with object_store() as environment:
        environment |= {"ORCHESTRATOR_CACHE": str(tmp_path / "cache")}
        with connected(environment):
            handed_over(serial, storage_of("s3://studies/mini"), *UNFINISHED)
        words = ["run", str(mini), "--out", str(out), "--store", "s3://studies/mini"]
        said = []
        with subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words], cwd=ROOT, env=os.environ | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if " train/" in line and "done in" in line:
                    break
            assert process.poll() is None, f"the run ended before it could be killed: {''.join(said)}"
            process.kill()
        done = orchestrator(*words, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = re.search(
            r"left by a dead run: (?:\d+ processes, killed, and )?(/\S*/orchestrator-ray-\w+), removed", done.stdout
        )
        assert folder and not Path(folder[1]).exists() and not processes(Path(folder[1])), done.stdout
        assert "base/scratch" not in done.stdout.partition("step ")[0], "what is finished is not made again"
        assert results(out) == results(serial)
        assert not list(out.glob("*/*/step.json")), "the steps lie in the bucket alone"
        again = orchestrator(*words, **environment)
        assert again.returncode == 0 and "nothing to do" in again.stdout
        told = json.loads((out / "study.json").read_text())
        assert told["store"] == "s3://studies/mini" and "testing" not in json.dumps(told)
