"""A real S3 server, for tests of stores in an object store: moto's, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from execution import storage as places

if TYPE_CHECKING:
    from tests.hosts import Host

PROGRAM = """
from moto.server import ThreadedMotoServer
import sys, time, urllib.error, urllib.request
server = ThreadedMotoServer(sys.argv[1], 0)
server.start()
address = "http://{}:{}".format(*server.get_host_and_port())
for attempt in range(300):  # it may need a moment until it listens
    try:
        urllib.request.urlopen(urllib.request.Request(f"{address}/{sys.argv[2]}", method="PUT"), timeout=10).close()
        break
    except urllib.error.URLError:
        time.sleep(0.1)
print("bucket at", address, flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def object_store(bucket: str = "studies", on: Host | None = None) -> Iterator[dict[str, str]]:
    """The environment in which ``s3://bucket`` is there and empty; the server ends with the block.

    ``on``: the host that serves it, and whose network alone has it. This process is not connected to it:
    ``connected`` does that.
    """
    words = [sys.executable, "-c", PROGRAM, on.address if on else "127.0.0.1", bucket]
    quiet = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        on.words(*words) if on else words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=quiet,
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        try:
            yield {
                "AWS_ENDPOINT_URL": next(line.split()[-1] for line in server.stdout if line.startswith("bucket at ")),
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            server.stdin.close()
            server.kill()


@contextmanager
def connected(environment: dict[str, str]) -> Iterator[None]:
    """Within the block this process, too, finds the store of ``environment``."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        places._file_system.cache_clear()  # of an earlier server
        yield
    places._file_system.cache_clear()
