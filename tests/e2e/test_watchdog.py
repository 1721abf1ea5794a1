"""Code that does not give way stops its own run and no other."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from orchestrator import workflow
from orchestrator.api.embedded import Engine
from orchestrator.api.reads import ThreadedReader
from orchestrator.client import Client
from orchestrator.coordinator.watchdog import WALL_LIMIT_S
from orchestrator.errors import QueryFailed, WorkflowFailure
from orchestrator.protocol.ids import partition_of

pytestmark = pytest.mark.timeout(60)

given_up = threading.Event()
"""Ends the thread that the engine gave up: a test must not leave one that spins."""

ENTERED: list[str] = []


@pytest.fixture(autouse=True)
def _no_spinning_thread_stays() -> Iterator[None]:
    given_up.clear()
    ENTERED.clear()
    yield
    given_up.set()


@workflow.defn
class Spins:
    @workflow.run
    async def run(self) -> None:
        while True:
            pass


def spin() -> None:
    """Long enough that what is raised asynchronously hits this, where it is caught, and not its caller."""
    for _ in range(100_000):
        pass


@workflow.defn
class Yields:
    """Catches what is raised in it, and comes back from each await: only its loop can end it."""

    @workflow.run
    async def run(self) -> None:
        while not given_up.is_set():
            with suppress(BaseException):
                spin()
                await asyncio.sleep(0)


@workflow.defn
class SwallowsEverything:
    @workflow.run
    async def run(self) -> None:
        ENTERED.append("once")
        while not given_up.is_set():
            try:  # not suppress(): its own code would be a gap
                spin()
            except BaseException:
                continue


@workflow.defn
class ComputesInC:
    @workflow.run
    async def run(self) -> int:
        return len([hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000) for _ in range(5)])


@workflow.defn
class Answers:
    @workflow.run
    async def run(self, number: int) -> int:
        await asyncio.sleep(0.001)
        return number


WORKFLOWS = [Spins, Yields, SwallowsEverything, ComputesInC, Answers]


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Engine, Client]]:
    engine = await asyncio.to_thread(Engine, folder, WORKFLOWS)
    try:
        await engine.wait_ready()
        aio = engine.aio()
        async with Client(aio, reader=ThreadedReader(engine.reader)) as client:
            yield engine, client
        await aio.close()
    finally:
        await asyncio.to_thread(engine.close)


def ids_beside(workflow_id: str, engine: Engine) -> Iterator[str]:
    """Ids that live in the same partition."""
    partitions = engine.log.partitions
    ids = (f"beside-{number}" for number in count())
    return (id for id in ids if partition_of(id, partitions) == partition_of(workflow_id, partitions))


async def others_complete(client: Client, ids: Iterator[str]) -> None:
    names = [next(ids) for _ in range(20)]
    calls = [client.execute_workflow(Answers.run, i, id=name) for i, name in enumerate(names)]
    assert await asyncio.gather(*calls) == list(range(20))


async def test_many_runs_that_spin_cost_no_claim_and_stop_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One after the other they take longer than a pause that costs the claims, at first and after it."""
    async with running(tmp_path) as (engine, client):
        starts = [client.start_workflow(Spins.__name__, id=f"spins-{number}") for number in range(4)]
        spinning = await asyncio.gather(*starts)
        await others_complete(client, ids_beside("spins-0", engine))
        await asyncio.gather(*[run.terminate() for run in spinning])
    assert "claimed anew" not in caplog.text


@pytest.mark.parametrize("endless", [Spins, Yields])
async def test_a_run_whose_code_spins_is_blocked_and_others_go_on(tmp_path: Path, endless: type) -> None:
    async with running(tmp_path) as (engine, client):
        ids = ids_beside("spins", engine)
        spinning = await client.start_workflow(endless.__name__, id="spins")
        await others_complete(client, ids)
        with pytest.raises(QueryFailed, match=r"is blocked and cannot answer.*did not give way"):
            await spinning.query("__stack")
        blocked = (await spinning.describe()).blocked
        assert blocked is not None
        assert f"more than {WALL_LIMIT_S:.0f} s" in blocked.message
        assert not engine.fatal

        await spinning.terminate("it spins")
        with pytest.raises(WorkflowFailure, match="it spins"):
            await spinning.result()
        assert await client.execute_workflow(Answers.run, 7, id="spins") == 7  # the id can be used again


async def test_a_thread_whose_code_cannot_be_ended_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path) as (engine, client):
        ids = ids_beside("swallows", engine)
        swallowing = await client.start_workflow(SwallowsEverything.run, id="swallows")
        await others_complete(client, ids)
        assert "'swallows'" in engine.fatal
        assert "should be restarted" in engine.fatal
        with pytest.raises(QueryFailed, match="is blocked and cannot answer"):
            await swallowing.query("__stack")
        assert ENTERED == ["once"]  # the second thread did not enter it
        await others_complete(client, ids)

        await swallowing.terminate("it swallows")
        with pytest.raises(WorkflowFailure, match="it swallows"):
            await swallowing.result()


async def test_slow_code_that_ends_in_time_is_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as (engine, client):
        slow = await client.start_workflow(ComputesInC.run, id="computes")
        assert await slow.result() == 5
        assert (await slow.describe()).blocked is None
        assert not engine.fatal
