"""Two hosts on this machine, each with its own network, host name, process ids, HOME and TMPDIR, joined by one cable.

They are Linux namespaces, made by ``unshare``, which vanish with the processes in them. The second host does not see
this project's packages. What both see is the rest of the file system, so a folder can be shared, or an object store.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import psutil

from orchestrator.cluster.connection import PACKAGES, ROOT

APART = ("--net", "--mount", "--uts", "--pid")
ADDRESSES = {"head": "10.99.0.1", "second": "10.99.0.2"}
PORT, JOBS = 6379, 8265  # of Ray's head and its job server, free in a network of its own
INIT = (
    "while :; do sleep 1000 & wait; done"  # a host's first process: it has to collect those that have lost their parent
)
RAY = str(Path(sys.executable).with_name("ray"))


def lack() -> str | None:
    """Why no hosts can be made here; None where they can."""
    missing = [tool for tool in ("ip", "unshare", "nsenter", "setpriv", "mount") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)} (iproute2, util-linux)"
    tried = subprocess.run(["unshare", *APART, "--fork", "true"], capture_output=True, text=True)
    return f"makes no namespaces: {tried.stderr.strip()} (needs root)" if tried.returncode else None


@dataclass
class Host:
    """A host: ``pid`` is its first process, with which everything in it ends; ``own`` its private folder, seen from
    outside."""

    name: str
    pid: int
    address: str
    own: Path
    inside: Path  # the same folder as its processes see it
    environment: dict[str, str] = field(default_factory=dict)

    def words(self, *command: str, folder: Path | None = None, **environment: str) -> list[str]:
        """The command line that runs ``command`` on this host, in ``folder`` (its private one by default)."""
        spaces = [f"{name}={value}" for name, value in (self.environment | environment).items()]
        enter = ["nsenter", "--target", str(self.pid), *APART, "--"]
        return [*enter, "env", f"--chdir={folder or self.inside}", *spaces, *command]

    def start(self, *command: str, log: IO[Any] | int, folder: Path | None = None, **environment: str) -> Any:
        """A process on this host, whose output goes to ``log``."""
        words = self.words(*command, folder=folder, **environment)
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, text=True)

    def cable(self, state: str) -> None:
        """``down``: cut the host off; ``up``: connect it again."""
        subprocess.run(self.words("ip", "link", "set", "cable", state), check=True)

    def end(self) -> None:
        """Kill everything on this host, as a loss of power does."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        until = time.monotonic() + 30
        while psutil.pid_exists(self.pid) and time.monotonic() < until:
            time.sleep(0.01)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """``(head, second)``, with a cable between them; all that runs on them ends with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="hosts-", ignore_cleanup_errors=True)))
        head, second = (_host(stack, folder, name) for name in ADDRESSES)
        ends = ("netns", str(head.pid), "type", "veth", "peer", "cable", "netns", str(second.pid))
        subprocess.run(["ip", "link", "add", "cable", *ends], check=True)
        for host in (head, second):  # the address is of a bridge, since the cable vanishes on both sides with a host
            for words in (
                ("set", "lo", "up"), ("add", "card", "type", "bridge"), ("set", "cable", "up", "master", "card"),
                ("set", "card", "up"),
            ):  # fmt: skip
                subprocess.run(host.words("ip", "link", *words), check=True)
            subprocess.run(host.words("ip", "addr", "add", f"{host.address}/24", "dev", "card"), check=True)
        yield head, second


def _host(stack: ExitStack, folder: Path, name: str) -> Host:
    own, inside = folder / name, folder / "own"
    for place in (own / "home", own / "tmp", inside):
        place.mkdir(parents=True, exist_ok=True)
    script = [f"mount --bind {own} {inside}", f"hostname {name}"]
    if name != "head":
        script += [f"mount -t tmpfs none {ROOT / package}" for package in PACKAGES]
    script += [f"touch {inside}/up", INIT]
    alive = ["setpriv", "--pdeathsig", "KILL", "unshare", *APART, "--fork", "--kill-child", "--mount-proc"]
    words = [*alive, "bash", "-ec", "; ".join(script)]  # the host ends with this process, however it ends
    process = stack.enter_context(subprocess.Popen(words, stderr=subprocess.DEVNULL))
    stack.callback(process.kill)
    until = time.monotonic() + 10
    while not (own / "up").exists():
        assert process.poll() is None and time.monotonic() < until, f"host {name} did not start"
        time.sleep(0.01)
    (first,) = psutil.Process(process.pid).children()
    homes = {"HOME": str(inside / "home"), "TMPDIR": str(inside / "tmp")}
    return Host(name, first.pid, ADDRESSES[name], own, inside, homes)


def start_ray(hosts: Sequence[Host], environment: Mapping[str, str], cpus: int = 1) -> str:
    """A Ray node on each host, the first the head; its address. All of them, and what is started on the hosts later,
    get ``environment`` and the cluster's token."""
    head, token = hosts[0], secrets.token_hex(32)
    address = f"{head.address}:{PORT}"
    for host in hosts:
        host.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} | environment
        where = ["--head", f"--port={PORT}", "--dashboard-host=0.0.0.0"] if host is head else [f"--address={address}"]
        log = host.own / "ray.log"
        with log.open("w") as said:
            node = host.start(
                RAY, "start", "--block", f"--node-ip-address={host.address}", *where, f"--num-cpus={cpus}",
                "--num-gpus=0", "--disable-usage-stats", log=said,
            )  # fmt: skip
        until = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
    return address
