"""When ``orchestrator dev`` ends by itself, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator import workflow
from orchestrator.api.embedded import Engine
from orchestrator.cli import dev_process
from orchestrator.cli.process import until_stopped


@workflow.defn
class Nothing:
    @workflow.run
    async def run(self) -> None: ...


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = await asyncio.to_thread(Engine, tmp_path, [Nothing])
    await engine.wait_ready()
    yield engine
    await asyncio.to_thread(engine.close)


async def serve() -> None:
    """An HTTP server that goes on."""
    await asyncio.Event().wait()


async def ending(engine: Engine, http: asyncio.Task[None], stop: asyncio.Event | None = None) -> str:
    said = await until_stopped(stop or asyncio.Event(), lambda: dev_process._trouble(engine, http))
    http.cancel()
    return said


async def test_told_to_stop_it_ends_without_a_word(engine: Engine) -> None:
    stop, http = asyncio.Event(), asyncio.create_task(serve())
    ended = asyncio.create_task(ending(engine, http, stop))
    await asyncio.sleep(0)
    assert not ended.done()
    stop.set()
    assert await ended == ""


async def test_an_engine_that_should_be_restarted_ends_the_process(engine: Engine) -> None:
    """What makes an engine say so, tests/e2e/test_watchdog.py shows."""
    engine.fatal = "the code of workflow 'w' does not give way"
    http = asyncio.create_task(serve())
    assert await ending(engine, http) == "the code of workflow 'w' does not give way"


async def test_an_engine_that_has_stopped_ends_the_process(engine: Engine) -> None:
    engine.error = OSError("the disk is full")
    http = asyncio.create_task(serve())
    assert await ending(engine, http) == "the engine has stopped: OSError: the disk is full"


async def test_a_server_that_has_stopped_ends_the_process(engine: Engine) -> None:
    async def breaks() -> None:
        raise OSError("no more sockets")

    http = asyncio.create_task(breaks())
    await asyncio.wait([http])
    assert await ending(engine, http) == "the HTTP server has stopped: OSError('no more sockets')"
