"""A teacher behind a real `vllm serve`: a whole rollouts step through it, killed midway and taken up again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from execution.store import write_json
from orchestrator.rollouts.api_sampling import JOURNAL, Journal
from orchestrator.rollouts.dataset import read_table
from orchestrator.rollouts.sources.openai import ApiRollouts
from orchestrator.steps.rollouts import STATISTICS
from tests.integration.conftest import ROOT

pytest.importorskip("vllm")
KEY = "sk-secret-0123456789"
PROMPT = {
    "system": None, "template": None, "thinking": None, "max_prompt_tokens": 64, "max_answer_tokens": 32,
    "overlong": "truncate",
}  # fmt: skip
# The rollouts step in a process of its own, which kills itself when the n-th answer was written.
STEP = """
import json, os, pathlib, signal, sys
from orchestrator.rollouts import api_sampling as asking
from execution.context import Context
from orchestrator.rollouts.build import build
given = json.loads(sys.argv[1])
add, calls = asking.Journal.add, 0
def deadly(journal, question, answer):
    global calls
    add(journal, question, answer)
    calls += 1
    if calls == given["at"]:
        os.kill(os.getpid(), signal.SIGKILL)
asking.Journal.add = deadly
folders = {name: pathlib.Path(given[name]) for name in ("out", "work")}
build(Context(config=given["config"], runtime=given["where"], inputs={"base": pathlib.Path(given["base"])}, **folders,
            keep=lambda: None, progress=print, parallel_map=None, resources=None))
"""


@dataclass
class Server:
    url: str  # of its API
    root: str

    def answered(self) -> float:
        """Requests that it has answered to their end since it started, once it is at none."""
        while self._count("vllm:num_requests_running") or self._count("vllm:num_requests_waiting"):
            time.sleep(0.2)
        return self._count("vllm:request_success_total")

    def _count(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.root}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        found = [line for line in lines if line.startswith((f"{name}{{", f"{name} ")) and "abort" not in line]
        assert found, f"{name} is none of the server's counts"
        return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.fixture(scope="module")
def server(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        # Not `vllm serve`, which asks for the version of a package vllm: the CPU build is called otherwise.
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(served_model),
        "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY,
        "--dtype", "float32", "--enforce-eager", "--max-model-len", "128",
    ]  # fmt: skip
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            words, env=os.environ | environment, stdout=stream, stderr=stream, start_new_session=True
        ) as process,
    ):
        root = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + 600
            while not _up(f"{root}/health"):
                assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
                time.sleep(1)
            yield Server(f"{root}/v1", root)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:
            return bool(page.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def perform(
    server: Server,
    served_model: Path,
    tmp_path: Path,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs the step on twelve problems, two completions each, killed after ``at`` answers. One problem
    is by ``more_terms`` longer than the others."""

    def perform(at: int = 0, key: str = KEY, more_terms: int = 0, **more: object) -> subprocess.CompletedProcess[str]:
        source = tmp_path / "q.jsonl"
        rows = [{"question": f"{i} + 4", "answer": f"#### {i + 4}"} for i in range(12)]
        rows[5]["question"] += " + 0" * more_terms
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = ApiRollouts.model_validate(
            {
                "source": "openai", "base_url": server.url, "model": "tiny", "samples": 2, "max_tokens": 12,
                "at_once": 3, "retries": 1, "prices": [1.0, 2.0], "table": {"heldout": 0.25},
                "problems": {"task": "gsm8k", "source": str(source), "instruction": "{problem}"},
            }
            | more
        )  # fmt: skip
        for name in ("base", "out", "work"):
            (tmp_path / name).mkdir(exist_ok=True)
        write_json(tmp_path / "base" / "base.json", {"folder": str(served_model)})
        given = {"at": at} | {name: str(tmp_path / name) for name in ("base", "out", "work")}
        given |= {"config": spec.model_dump() | {"prompt": PROMPT}}
        given |= {"where": spec.model_dump() | {"sources": [str(source)]}}
        environment = os.environ | {"OPENAI_API_KEY": key, "NO_PROXY": "127.0.0.1"}
        words = [sys.executable, "-c", STEP, json.dumps(given)]
        return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    return perform


def test_killed_midway_and_taken_up_again(
    server: Server, perform: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    killed = perform(at=9)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = Journal(tmp_path / "work" / JOURNAL).answers
    assert len(kept) == 9
    before = server.answered()
    done = perform()
    assert done.returncode == 0, done.stderr
    assert server.answered() - before == 24 - 9, "what was kept is not asked for again"
    table = read_table(tmp_path / "out")
    stats = json.loads((tmp_path / "out" / STATISTICS).read_text())
    assert len(table) == 24 - stats["dropped"].get("empty", 0) and {r["teacher"] for r in table} == {"tiny"}
    assert {r["split"] for r in table} == {"train", "heldout"}
    assert (stats["api"]["answers"], stats["api"]["refused"]) == (24, 0)
    answers = Journal(tmp_path / "work" / JOURNAL).answers
    assert all(answers[place] == answer for place, answer in kept.items())
    assert {a.finish for a in answers.values()} <= {"stop", "length"}
    assert stats["api"]["completion_tokens"] == sum(a.completion_tokens for a in answers.values()) <= 24 * 12
    assert all(a.prompt_tokens == 4 for a in answers.values()), "i + 4 and the template's sign"
    assert len({a.text for a in answers.values()}) > 12, "every sample has a seed of its own"


def test_the_server_checks_the_key_and_the_model(perform: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = perform(key="sk-another")
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "refuses the key that OPENAI_API_KEY holds (401" in line
    assert "sk-another" not in line
    line = perform(model="other").stderr.strip().splitlines()[-1]
    assert "has no model other or no chat completions there (404: The model `other` does not exist" in line


def test_a_seed_makes_the_answer(perform: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Asked again from nothing, one request at a time: the same texts. With another seed: others."""
    texts = []
    for seed in (0, 0, 1):
        done = perform(seed=seed, at_once=1)
        assert done.returncode == 0, done.stderr
        path = tmp_path / "work" / JOURNAL
        texts.append([answer.text for answer in Journal(path).answers.values()])
        path.unlink()
    assert texts[0] == texts[1] != texts[2]


def test_a_request_that_is_too_long_for_the_server_is_left_out(
    perform: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The server holds 128 tokens."""
    done = perform(more_terms=100)
    assert done.returncode == 0, done.stderr
    stats = json.loads((tmp_path / "out" / STATISTICS).read_text())
    assert stats["dropped"]["refused by the teacher"] == stats["api"]["refused"] == 2
    assert stats["api"]["answers"] == 22
    assert len({r["problem_id"] for r in read_table(tmp_path / "out")}) == 11
