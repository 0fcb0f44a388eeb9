"""A real Ray cluster of two nodes on this machine: the second has another working folder, HOME and TMPDIR."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import ray.util

RAY = [str(Path(sys.executable).with_name("ray")), "start", "--block"]


@dataclass
class Node:
    """A node: the ``ray start --block`` that started it, and through that its raylet and workers."""

    process: subprocess.Popen[bytes]

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of the node with this name: its raylet; of a head, the gcs_server."""
        return [p for p in psutil.Process(self.process.pid).children(recursive=True) if p.name() == name]

    def kill(self, name: str) -> None:
        for process in self.processes(name):
            process.kill()

    def end(self) -> None:
        """Everything the node started: all of it is in its session."""
        for pid in psutil.pids():
            try:
                if os.getsid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self.process.wait(timeout=60)


@dataclass
class Nodes:
    """The cluster's address, what a driver's environment needs to join it, and its two nodes."""

    address: str
    environment: dict[str, str]
    head: Node
    second: Node


@contextmanager
def two_nodes(cpus: int = 1, **environment: str) -> Iterator[Nodes]:
    """A head and a second node with so many CPUs each; both end with the block. ``environment`` is that of both."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)} | environment
    port, client = free_port(), free_port()
    address = f"{ray.util.get_node_ip_address()}:{port}"
    with ExitStack() as stack:
        # Not below a test's own folder: the path of a socket in TMPDIR has at most 107 bytes.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="nodes-", ignore_cleanup_errors=True)))
        words = ["--head", f"--port={port}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
        head = _node(stack, folder / "head", words, cpus, environment)
        second = _node(stack, folder / "second", [f"--address={address}"], cpus, environment)
        yield Nodes(address, environment, head, second)


def _node(stack: ExitStack, folder: Path, words: list[str], cpus: int, environment: dict[str, str]) -> Node:
    places = {"HOME": folder / "home", "TMPDIR": folder / "tmp"}
    for place in places.values():
        place.mkdir(parents=True)
    log = stack.enter_context((folder / "log").open("wb"))
    process = subprocess.Popen(
        [*RAY, *words, f"--num-cpus={cpus}", "--num-gpus=0", "--disable-usage-stats"],
        cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        env=os.environ | environment | {name: str(place) for name, place in places.items()},
    )  # fmt: skip
    node = Node(process)
    stack.callback(node.end)
    until = time.monotonic() + 60
    while b"Ray runtime started" not in (folder / "log").read_bytes():
        assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.2)
    return node


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
