"""Workflow code that ends the process: after a few restarts its run is blocked, and all others finish."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from orchestrator.client import Client
from orchestrator.errors import LogError, Unavailable, WorkflowAlreadyStarted
from orchestrator.protocol.values import IdReusePolicy, WorkflowStatus
from orchestrator.protocol.views import RunDescription
from tests.e2e.dev_process import Dev

pytestmark = pytest.mark.timeout(180)

WORKFLOWS = """
import ctypes
import os

from activities import greet
from orchestrator import workflow


@workflow.defn
class Deadly:
    @workflow.run
    async def run(self, how: str) -> str:
        if how == "exits":
            os._exit(66)
        if how == "crashes after an activity":
            await workflow.execute_activity(greet, "x", start_to_close_timeout=30)
            ctypes.string_at(1)
        return "well"


@workflow.defn
class Greeting:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(greet, name, start_to_close_timeout=30)
"""

ACTIVITIES = """
from orchestrator import activity


@activity.defn
async def greet(name: str) -> str:
    return f"hello {name}"
"""

REJECT = IdReusePolicy.REJECT_DUPLICATE

LIVES = 12
"""More than any order of events needs."""


class Lives:
    """An engine that somebody starts again whenever it has died."""

    def __init__(self, folder: Path) -> None:
        (folder / "workflows.py").write_text(WORKFLOWS)
        (folder / "activities.py").write_text(ACTIVITIES)
        self.folder = folder
        self.deaths = 0
        self.dev = self.start()

    def start(self) -> Dev:
        for _ in range(LIVES):
            try:
                return Dev(self.folder)
            except AssertionError:  # it died before it was ready
                self.deaths += 1
        raise AssertionError("it dies at each start")

    def look_after(self) -> None:
        if self.dev.process.poll() is not None:
            self.dev.close()
            self.deaths += 1
            assert self.deaths < LIVES, "it dies again and again"
            self.dev = self.start()

    async def finish(self, wanted: dict[str, tuple[str, str]]) -> dict[str, RunDescription]:
        """Start all workflows (id → type, argument) until each is closed or blocked, through all deaths."""
        found: dict[str, RunDescription] = {}
        while set(found) != set(wanted):
            self.look_after()
            with suppress(Unavailable, LogError, httpx.HTTPError):
                async with await Client.connect(self.dev.address) as client:
                    await asyncio.gather(*(self.start_one(client, id, *call) for id, call in wanted.items()))
                    for id in wanted:
                        described = await client.get_workflow_handle(id).describe()
                        if described.row.status is not WorkflowStatus.RUNNING:
                            found[id] = described
        return found

    async def start_one(self, client: Client, id: str, kind: str, argument: str) -> None:
        with suppress(WorkflowAlreadyStarted, asyncio.TimeoutError):
            async with asyncio.timeout(3):
                await client.start_workflow(kind, argument, id=id, id_reuse_policy=REJECT)


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    made = Lives(tmp_path)
    yield made
    made.dev.close()


@pytest.mark.parametrize("how", ["exits", "crashes after an activity"])
async def test_its_run_is_blocked_and_all_others_finish(lives: Lives, how: str) -> None:
    wanted = {f"g{n}": ("Greeting", str(n)) for n in range(8)} | {"deadly": ("Deadly", how)}
    found = await lives.finish(wanted)
    blocked = found.pop("deadly")
    assert blocked.row.status is WorkflowStatus.BLOCKED
    assert blocked.blocked is not None
    assert blocked.blocked.type == "ProcessEnded"
    assert "the process ended each time" in blocked.blocked.message
    assert {described.row.status for described in found.values()} == {WorkflowStatus.COMPLETED}
    assert 2 <= lives.deaths < LIVES
    before = lives.deaths
    async with await Client.connect(lives.dev.address) as client:
        assert await client.execute_workflow("Greeting", "afterwards", id="afterwards") == "hello afterwards"
        assert await client.execute_workflow("Deadly", "is", id="harmless") == "well"
        await client.get_workflow_handle("deadly").terminate("it is deadly")
    lives.look_after()
    assert lives.deaths == before
