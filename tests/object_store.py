"""A real S3 server on loopback, for tests of stores in an object store: moto's, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from execution import storage as places

PROGRAM = """
from moto.server import ThreadedMotoServer
import sys, time
server = ThreadedMotoServer("127.0.0.1", 0)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def object_store(bucket: str = "studies") -> Iterator[dict[str, str]]:
    """The environment in which ``s3://bucket`` is there and empty; the server ends with the block.

    This process is not connected to it: ``connected`` does that.
    """
    quiet = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=quiet,
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        try:
            port = next(line.split()[1] for line in server.stdout if line.startswith("port "))
            endpoint = f"http://127.0.0.1:{port}"
            _make(f"{endpoint}/{bucket}")
            yield {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            server.stdin.close()
            server.kill()


def _make(address: str) -> None:
    """Make the bucket; the server may need a moment until it listens."""
    until = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="PUT"), timeout=10).close()
            return
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise


@contextmanager
def connected(environment: dict[str, str]) -> Iterator[None]:
    """Within the block this process, too, finds the store of ``environment``."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        places._file_system.cache_clear()  # of an earlier server
        yield
    places._file_system.cache_clear()
