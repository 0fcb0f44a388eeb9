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

from tests.integration.conftest import ROOT
from tests.object_store import object_store
from tests.ray_nodes import Nodes, two_nodes


@pytest.fixture(params=["folder", "object-store"])
def joined(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Nodes, list[str]]]:
    """Two nodes, and the words that name the place that they share."""
    with ExitStack() as stack:
        place: list[str] = []
        environment = {"ORCHESTRATOR_CACHE": str(tmp_path / "cache")}
        if request.param == "object-store":
            environment |= stack.enter_context(object_store())
            place = ["--store", "s3://studies/mini"]
        yield stack.enter_context(two_nodes(**environment)), place


@pytest.mark.parametrize("lost", [False, True], ids=["undisturbed", "a-node-lost"])
def test_two_nodes_give_the_serial_bytes(
    joined: tuple[Nodes, list[str]], lost: bool, mini: Path, serial: Path, tmp_path: Path
) -> None:
    nodes, place = joined
    out = tmp_path / "out"
    words = ["run", str(mini), "--address", nodes.address, "--out", str(out), *place]
    told = []
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words], cwd=ROOT, env=os.environ | nodes.environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        limit = threading.Timer(400, process.kill)
        limit.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                told.append(line)
                if lost and " train/" in line and "done in" in line:
                    nodes.second.kill_raylet()
                    lost = False
            assert process.wait(timeout=60) == 0, "".join(told)
        finally:
            limit.cancel()
            process.kill()
    assert not lost, "no training was seen to end"
    assert "2 nodes read and write" in "".join(told)
    assert (out / "report" / "results.json").read_bytes() == (serial / "report" / "results.json").read_bytes()
