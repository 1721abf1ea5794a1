from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

from orchestrator.api import server as module
from orchestrator.api.app import create_app
from orchestrator.api.backend import Backend
from orchestrator.api.embedded import Engine
from orchestrator.api.pages.live import STILL_HERE
from orchestrator.api.reads import ThreadedReader
from orchestrator.api.server import bind, serving
from orchestrator.errors import ConfigError, PortInUse

from .conftest import Greeting


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


async def test_who_looks_at_a_page_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_ANSWERS_S", 300)
    engine = await asyncio.to_thread(Engine, tmp_path, [Greeting])
    try:
        await engine.wait_ready()
        aio = engine.aio()
        backend = Backend(aio, ThreadedReader(engine.reader), engine.overview)
        handle = await backend.client.start_workflow("Greeting", "Ann", 9, id="w")
        taken = bind("127.0.0.1", 0)
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with asyncio.timeout(30), httpx.AsyncClient(base_url=address) as http:
            async with serving(create_app(backend), backend, taken):
                path = f"/workflows/w/{handle.run_id}/live"
                request = http.build_request("GET", path, params={"turn": 1_000})
                answer = await http.send(request, stream=True)
                lines = answer.aiter_lines()
                assert await anext(lines) == STILL_HERE.strip()
            assert [line async for line in lines] == [""]
        await aio.close()
    finally:
        await asyncio.to_thread(engine.close)
