"""A cluster of two nodes, joined: the results of a serial run, also when a node is lost midway."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from execution.storage import storage_of
from tests.integration.conftest import ROOT, UNFINISHED, handed_over, orchestrator
from tests.object_store import connected, object_store
from tests.ray_nodes import Node, Nodes, two_nodes


@pytest.fixture
def place(request: pytest.FixtureRequest, serial: Path, tmp_path: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The words that name what the nodes share, and their environment; some steps are finished there."""
    with ExitStack() as stack:
        environment = {"ORCHESTRATOR_CACHE": str(tmp_path / "cache")}
        if request.param == "folder":
            handed_over(serial, tmp_path / "out", *UNFINISHED)
            yield [], environment
        else:
            environment |= stack.enter_context(object_store())
            with connected(environment):
                handed_over(serial, storage_of("s3://studies/mini"), *UNFINISHED)
            yield ["--store", "s3://studies/mini"], environment


def followed(nodes: Nodes, words: list[str], victim: tuple[Node, str] | None) -> tuple[int, str]:
    """A run joined to the nodes, to its end: its exit code and its words. The victim dies when a training has ended."""
    told = []
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "run", *words, "--address", nodes.address], cwd=ROOT,
        env=os.environ | nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        limit = threading.Timer(800, process.kill)
        limit.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                told.append(line)
                if victim and " train/" in line and "done in" in line:
                    victim[0].kill(victim[1])
                    victim = None
            code = process.wait(timeout=60)
        finally:
            limit.cancel()
            process.kill()
    assert victim is None, f"no training was seen to end: {''.join(told)}"
    return code, "".join(told)


@pytest.mark.parametrize(
    ("place", "lost"),
    [("folder", ""), ("object-store", "second")],
    indirect=["place"],
)
def test_two_nodes_give_the_serial_bytes(
    place: tuple[list[str], dict[str, str]], lost: str, mini: Path, serial: Path, tmp_path: Path
) -> None:
    """Undisturbed, and without the second node midway.

    Ray's head does not always live through the loss of a node: then the run is taken up without a cluster.
    """
    shared, environment = place
    words = [str(mini), "--out", str(tmp_path / "out"), *shared]
    with two_nodes(**environment) as nodes:
        victim = (nodes.second, "raylet") if lost else None
        code, told = followed(nodes, words, victim)
        headless = not nodes.head.processes("gcs_server")
    assert "2 nodes read and write" in told
    if lost and headless:
        assert code == 1 and "Go on with: python -m orchestrator run " in told, told
        done = orchestrator("run", *words, "--serial", **environment)
        finished = [line.split()[1] for line in told.splitlines() if ": done in" in line]
        code, told = done.returncode, done.stdout + done.stderr
        assert finished and not [f for f in finished if f"{f} done in" in told], "what is finished is not made again"
    assert code == 0, told
    assert (tmp_path / "out" / "report" / "results.json").read_bytes() == (
        serial / "report" / "results.json"
    ).read_bytes()
