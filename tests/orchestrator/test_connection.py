"""Joining a cluster: what is not there is said at once."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from execution.errors import ClusterLost, UserError
from orchestrator.cluster import connection
from orchestrator.cluster.connection import answering, knock


def test_an_address_where_nothing_listens_is_refused() -> None:
    with socket.socket() as held:  # bound, not listening
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^--address {address}: no Ray cluster can be joined there \("):
            knock(address)


def test_what_listens_and_is_no_ray_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KNOCK", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"^--address {address}: a process listens there, but not a Ray head"):
            knock(address)


@pytest.mark.parametrize(
    "address",
    ["", "garbage", "a b:1", "127.0.0.1:", ":6379", "h:70000", "http://h:1", "ray://h:1", "u@h:1", "[::1", "h:1/x"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"write it as HOST:PORT, or auto for the cluster of this node$"):
        knock(address)


def test_what_speaks_rays_protocol_and_auto_are_left_to_ray() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        knock(f"127.0.0.1:{port}")
    finally:
        server.stop(None)
    knock("auto")


def test_a_head_that_is_away_for_long_is_a_lost_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = f"127.0.0.1:{server.getsockname()[1]}"
        answering(head)
    monkeypatch.setattr(connection, "GRACE", 0.0)
    with pytest.raises(ClusterLost, match=f"^the Ray cluster's head does not answer at {head} "):
        answering(head)


# Joins, is told to stop; leaves, is told to stop.
TOLD_TO_STOP = """
import os, signal
from pathlib import Path
import ray
from orchestrator.cluster.connection import join, leave
heard = []
signal.signal(signal.SIGTERM, lambda *given: heard.append(given))
join(None)
os.kill(os.getpid(), signal.SIGTERM)
folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
print(folder.name.rpartition("-")[0], oct(folder.stat().st_mode & 0o777))
leave()
os.kill(os.getpid(), signal.SIGTERM)
print("heard", len(heard), folder.exists())
"""


def test_ray_keeps_neither_the_signal_to_stop_nor_a_folder() -> None:
    """Ray's own answer to SIGTERM is a stack trace and another exit code, and after it has left there is none.

    Its folder is open to all, and stays: it lies in one that is not, and goes.
    """
    words = [sys.executable, "-c", TOLD_TO_STOP]
    done = subprocess.run(words, cwd=connection.ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "orchestrator-ray 0o700\nheard 2 False\n"), done.stderr


def test_a_cluster_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because of much.\nTraceback")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ClusterLost, match=r"^Ray did not start on this machine \(The current node timed out[^\n]*\)$"):
        connection.join(None)
