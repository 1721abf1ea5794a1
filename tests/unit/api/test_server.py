from __future__ import annotations

import socket

import pytest

from orchestrator.api.server import bind
from orchestrator.errors import ConfigError, PortInUse


def test_a_port_that_is_taken_is_told_by_its_number() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99_999), ("203.0.113.1", 0), ("no host", 0)])
def test_what_cannot_be_listened_on(host: str, port: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on {host}:{port}"):
        bind(host, port)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio switches Nagle's algorithm off for sockets that say that they are TCP, and only for them."""
    with bind("127.0.0.1", 0) as taken:
        assert taken.proto == socket.IPPROTO_TCP
