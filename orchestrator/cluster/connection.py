"""Starts a Ray cluster on loopback or joins a running one, and checks each node before anything is placed on it."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import grpc
import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from execution.errors import ClusterLost, UserError, first_line, last_line
from execution.storage import Storage
from execution.store import Store
from orchestrator.cluster.session import close_token, open_to_all, session
from orchestrator.config.study import Study
from orchestrator.runtime.threads import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "methods", "analysis", "report", "evals", "models", "execution", "results")
SAME = ("torch", "transformers", "peft", "trl", "ray", "numpy")  # other versions differ in rounding or API
GRACE = 30.0  # seconds for which a cluster's head may be unreachable; Ray ends every process after 60
KNOCK = 10.0  # seconds to wait for an address to answer
PROOF = 300.0  # seconds for a node to start a worker and answer

_session = ExitStack()  # closed when the cluster is left


def join(address: str | None, progress: Callable[[str], None] = lambda line: None) -> bool:
    """Start a local cluster on loopback, or join the one at ``address``. Workers get only the packages.

    Returns whether the cluster requires a token. ``UserError`` if no cluster can be joined, ``ClusterLost`` if Ray
    does not start.
    """
    variables = {
        **ENVIRONMENT,
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default notices each finished training seconds late
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    os.environ.update(variables)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    common: dict[str, Any] = {
        "runtime_env": {"py_modules": [str(ROOT / p) for p in PACKAGES], "env_vars": variables},
        **quiet,
    }
    close_token(not address, progress)
    if address:
        guarded = maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # Ray does so for local clusters
        try:
            with _own_sigterm():
                ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"--address {address}: no Ray cluster can be joined there ({first_line(error)}); see `ray status`"
            ) from None
        return guarded
    # Without this Ray resolves even 127.0.0.1 to the machine's external address.
    ray_constants.ENABLE_RAY_CLUSTER = False
    internal = {
        "idle_worker_killing_time_threshold_ms": 600_000,  # imports cost seconds
        "num_workers_soft_limit": 8,
        "enable_metrics_collection": False,  # unused, and the driver's memory grows by 10 KiB a second
    }
    atexit.register(leave)
    try:
        folder = str(_session.enter_context(session()))
        with _own_sigterm():
            ray.init(address="local", include_dashboard=False, _system_config=internal, _temp_dir=folder, **common)
    except BaseException as error:
        leave()
        if isinstance(error, Exception) and not isinstance(error, (UserError, OSError)):
            raise ClusterLost(f"Ray did not start on this machine ({first_line(error)})") from None
        raise
    return True


def leave() -> None:
    """Shut the local cluster down and remove its folder, or disconnect from the joined one."""
    try:
        with _own_sigterm():
            ray.shutdown()
    finally:
        _session.close()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep our SIGTERM handler: Ray installs its own when it starts, and resets to the default when it ends."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


def knock(address: str) -> None:
    """``UserError`` if no Ray head answers at HOST:PORT; Ray itself would try for minutes. ``auto`` is not checked."""
    if address == "auto":
        return
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.path or parts.username or address.split() != [address]:
        raise UserError(f"--address {address}: write it as HOST:PORT, or auto for the cluster of this node")
    try:
        socket.create_connection((host, port), timeout=KNOCK).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: no Ray cluster can be joined there ({error}); see `ray status`"
        ) from None
    if os.environ.get("RAY_USE_TLS") == "1":
        return  # the check below does not use Ray's certificates
    channel = grpc.insecure_channel(parts.netloc)
    try:
        grpc.channel_ready_future(channel).result(timeout=KNOCK)
    except grpc.FutureTimeoutError:
        raise UserError(f"--address {address}: a process listens there, but not a Ray head; see `ray status`") from None
    finally:
        channel.close()


def answering(head: str) -> None:
    """``ClusterLost`` if nothing listens at the cluster's head, HOST:PORT, for ``GRACE`` seconds."""
    parts = urlsplit(f"//{head}")
    until = time.monotonic() + GRACE
    while True:
        try:
            socket.create_connection((parts.hostname, parts.port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise ClusterLost(f"the Ray cluster's head does not answer at {head} ({error})") from None
            time.sleep(1)


def prove_nodes(store: Store, study: Study, progress: Callable[[str], None] = lambda line: None) -> list[str]:
    """The names of the cluster's nodes. ``UserError`` names the first that cannot run steps, and why.

    Each node must read what the driver wrote to the store, write what the driver can read, see a local base's folder
    and have the driver's library versions. Nodes that join later are not checked.
    """
    proof = uuid4().hex
    folder = study.base.local_path
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = f".proof-{proof}"
    store.storage.write(asked, proof.encode())
    try:
        tasks = {
            node["NodeID"]: _prove.options(
                num_cpus=0, max_retries=0, scheduling_strategy=on_node(node["NodeID"])
            ).remote(store.storage, asked, node["NodeID"], folder)
            for node in nodes
        }
        here = versions()
        for node in nodes:
            name = node["NodeName"]
            try:
                there = ray.get(tasks[node["NodeID"]], timeout=PROOF)
            except RayError as error:
                raise UserError(f"node {name} cannot run a task: {last_line(error)}") from None
            lack = _lack(there, here, store.storage, f"{asked}-{node['NodeID']}", proof)
            if lack:
                raise UserError(f"node {name} {lack}")
            if there["open"]:
                progress(
                    f"node {name}: every user of its machine can write to {there['open']}, where Ray keeps the code: "
                    "see On a cluster in README.md"
                )
    finally:
        for name in [asked, *(f"{asked}-{node['NodeID']}" for node in nodes)]:
            store.storage.remove(name)
    return [node["NodeName"] for node in nodes]


@ray.remote
def _prove(place: Storage, asked: str, node: str, folder: str | None) -> dict[str, Any]:
    """Run on a node: whether it can read and write the store, its versions, and whether it sees the base's folder."""
    facts: dict[str, Any] = {"versions": versions(), "error": None}
    try:
        read = place.read(asked)
        facts["read"] = read is not None
        if read is not None:
            place.write(f"{asked}-{node}", read)
    except OSError as error:
        facts["error"] = last_line(error)
    facts["base"] = folder is None or Path(folder).is_dir()
    facts["folder"] = folder
    own = ray._private.worker._global_node
    facts["open"] = own.get_session_dir_path() if own and open_to_all(Path(own.get_session_dir_path())) else None
    return facts


def _lack(there: dict[str, Any], here: dict[str, str], place: Storage, answer: str, proof: str) -> str | None:
    """What is wrong with a node, as the end of a sentence; None if nothing is."""
    if there["error"]:
        return f"cannot use the store {place}: {there['error']}"
    if not there["read"]:
        return f"does not see what was written to {place}: name a shared folder, or --store s3://BUCKET/PREFIX"
    if place.read(answer) != proof.encode():
        return f"writes to another {place} than this one: name a shared folder, or --store s3://BUCKET/PREFIX"
    if not there["base"]:
        return f"has no {there['folder']} (base.path): put the base where every node sees it"
    for name, version in here.items():
        if there["versions"].get(name) != version:
            return f"has {name} {there['versions'].get(name, 'not at all')}, here it is {version}: install the same"
    return None


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that must be the same on all nodes."""
    result = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in SAME:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = "not at all"
    return result


def on_node(node: str) -> Any:
    """Ray's scheduling strategy for a task that must run on this node."""
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)
