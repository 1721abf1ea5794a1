"""The disk fails, or is to be tidied up, while an engine works."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestrator
from orchestrator import workflow
from orchestrator.api.embedded import Engine
from orchestrator.client.client import Client
from tests.e2e.dev_process import TIMEOUT_S, Dev, environment, write_modules

MAX_FILE_BYTES = 64 * 1024
"""Later writes fail, as on a full disk; enough for what the process says on stderr."""

PROGRAM = """
import asyncio, resource, sys, time
import orchestrator
from orchestrator import workflow
from orchestrator.errors import Unavailable


@workflow.defn
class Waits:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)


async def main():
    async with orchestrator.embedded(sys.argv[1], workflows=[Waits]) as client:
        waiting = await client.start_workflow(Waits.run, id="waiting")
        result = asyncio.create_task(waiting.result())
        await asyncio.sleep(0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
        before = time.monotonic()
        for call in (client.start_workflow(Waits.run, id="w"), result, waiting.terminate()):
            try:
                await call
            except Unavailable as error:
                print(error)
        print(round(time.monotonic() - before))

asyncio.run(main())
"""


def test_clients_in_the_same_process_are_told_at_once(tmp_path: Path) -> None:
    """Those that wait already, and those that come later."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    *errors, took_s = done.stdout.splitlines()
    assert len(errors) == 3
    for error in errors:
        assert error.startswith("the engine has stopped: the log in ")
        assert "File too large" in error
    assert int(took_s) <= 3
    assert done.stderr.count("claimed anew") < 20, "the coordinator should end, not try again and again"


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    write_modules(tmp_path)
    running = Dev(tmp_path)
    yield running
    running.close()


async def test_dev_ends_with_the_reason(dev: Dev, tmp_path: Path) -> None:
    async with await Client.connect(dev.address) as client:
        await client.start_workflow("Greeting", "Ann", 1, id="kept")
        resource.prlimit(dev.process.pid, resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
        asked = asyncio.create_task(client.start_workflow("Greeting", "x" * MAX_FILE_BYTES, id="lost"))
        assert await asyncio.to_thread(dev.process.wait, TIMEOUT_S) == 1
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    said = dev.log.read_text()
    assert "the engine has stopped: LogError: the log in " in said
    assert "Free some disk space" in said
    again = Dev(tmp_path)
    try:
        async with await Client.connect(again.address) as client:
            await client.get_workflow_handle("kept").signal("add", "Bob")
            assert await client.get_workflow_handle("kept").result() == "hello Ann and Bob"
    finally:
        again.close()


@workflow.defn
class Echo:
    @workflow.run
    async def run(self, number: int) -> int:
        await asyncio.sleep(0.001)
        return number


async def test_the_log_can_be_compacted_while_the_engine_works(tmp_path: Path) -> None:
    async with orchestrator.embedded(tmp_path, workflows=[Echo]):
        pass
    engine = await asyncio.to_thread(Engine, tmp_path, [Echo])
    await engine.wait_ready()
    aio = engine.aio()
    ended = threading.Event()

    def compact() -> int:
        rounds = 0
        while not ended.is_set():
            engine.log.compact(lag_ms=0, tombstone_age_ms=0)
            rounds += 1
        return rounds

    compacting = asyncio.create_task(asyncio.to_thread(compact))
    async with Client(aio) as client:
        calls = [client.execute_workflow(Echo.run, n, id=f"e-{n}") for n in range(200)]
        assert await asyncio.gather(*calls) == list(range(200))
    ended.set()
    assert await compacting > 0
    assert engine.error is None
    await aio.close()
    await asyncio.to_thread(engine.close)

    async with orchestrator.embedded(tmp_path, workflows=[Echo]) as client:
        assert [row.status async for row in client.list_workflows()] == ["Completed"] * 200
