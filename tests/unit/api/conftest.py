from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from orchestrator import activity, workflow
from orchestrator.activity.definition import ActivityDefinition, definition_of
from orchestrator.api.app import create_app
from orchestrator.api.backend import Backend
from orchestrator.api.embedded import Engine
from orchestrator.api.reads import ThreadedReader
from orchestrator.errors import ApplicationError

ADDRESS = "http://127.0.0.1:7350"


@activity.defn
async def greet(name: str) -> str:
    return f"hello {name}"


@workflow.defn
class Greeting:
    def __init__(self) -> None:
        self.names: list[str] = []

    @workflow.run
    async def run(self, name: str, more: int = 0) -> str:
        if name == "bad":
            raise ApplicationError("no such person", {"name": name}, type="Unknown")
        greeting: str = await workflow.execute_activity(greet, name, start_to_close_timeout=30)
        await workflow.wait_condition(lambda: len(self.names) >= more)
        return " and ".join([greeting, *self.names])

    @workflow.signal
    def add(self, name: str) -> None:
        self.names.append(name)

    @workflow.query
    def count(self) -> int:
        return len(self.names)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[httpx.ASGITransport]:
    """An engine and its HTTP API, without a network."""
    engine = await asyncio.to_thread(Engine, folder, [Greeting])
    try:
        await engine.wait_ready()
        aio = engine.aio()
        backend = Backend(aio, ThreadedReader(engine.reader), engine.overview)
        yield httpx.ASGITransport(create_app(backend))
        await backend.close()
        await aio.close()
    finally:
        await asyncio.to_thread(engine.close)


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[httpx.ASGITransport]:
    async with serving(tmp_path) as transport:
        yield transport


@pytest.fixture
async def http(transport: httpx.ASGITransport) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=transport, base_url=f"{ADDRESS}/api/v1") as client:
        yield client


@pytest.fixture
def greet_definition() -> ActivityDefinition:
    return definition_of(greet)
