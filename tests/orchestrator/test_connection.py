"""Joining a cluster: what is not there is said at once."""

from __future__ import annotations

import socket

import pytest

from orchestrator.connection import knock
from orchestrator.errors import UserError


@pytest.mark.parametrize("port", ["free", "70000"])
def test_an_address_where_nothing_listens_is_refused(port: str) -> None:
    with socket.socket() as held:  # bound, not listening
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1] if port == 'free' else port}"
        with pytest.raises(UserError, match=rf"^--address {address}: no Ray cluster can be joined there \("):
            knock(address)


def test_one_that_answers_and_other_forms_are_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        knock(f"127.0.0.1:{server.getsockname()[1]}")
    knock("auto")
    knock("ray://head:10001")
