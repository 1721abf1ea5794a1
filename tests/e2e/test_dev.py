"""``orchestrator dev`` as a process: starts, stops, dies and comes back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import activity
from orchestrator.client.client import Client
from orchestrator.errors import WorkflowAlreadyStarted, WorkflowFailure
from orchestrator.protocol.views import RunRow
from orchestrator.worker.worker import Worker
from tests.e2e.dev_process import Dev, write_modules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_modules(tmp_path)
    return tmp_path


@pytest.fixture
def dev(folder: Path) -> Iterator[Dev]:
    running = Dev(folder)
    yield running
    running.close()


@activity.defn
async def shout(name: str) -> str:
    return name.upper()


def test_sets_of_workflow_code_iterate_alike_at_each_start(dev: Dev) -> None:
    surroundings = Path(f"/proc/{dev.process.pid}/environ").read_bytes().split(b"\0")
    assert b"PYTHONHASHSEED=0" in surroundings


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(dev: Dev, number: int) -> None:
    assert dev.stop(number) == 0
    assert "Traceback" not in dev.log.read_text()


async def test_it_stops_while_others_are_connected(dev: Dev) -> None:
    async with await Client.connect(dev.address) as client:
        await client.start_workflow("Greeting", "Ann", 1, id="g")
        assert dev.stop(signal.SIGTERM) == 0
    assert "Traceback" not in dev.log.read_text()


async def test_a_client_elsewhere_starts_asks_and_reads(dev: Dev) -> None:
    async with await Client.connect(dev.address) as client:
        handle = await client.start_workflow("Greeting", "Ann", 1, id="a/b")
        with pytest.raises(WorkflowAlreadyStarted) as refused:
            await client.start_workflow("Greeting", "Ann", id="a/b")
        assert refused.value.run_id == handle.run_id
        await handle.signal("add", "Bob")
        assert await handle.query("count") == 1
        assert await handle.result() == "hello Ann and Bob"
        described = await handle.describe()
        assert described.row.status == "Completed"
        rows: list[RunRow] = [row async for row in client.list_workflows()]
        assert rows == [described.row]
        history = await client.history("a/b")
        assert sum(len(turn.events) for turn in history.turns) == described.row.history_events
        with pytest.raises(WorkflowFailure, match="no such person"):
            await client.execute_workflow("Greeting", "bad", id="bad")


async def test_a_worker_elsewhere_runs_activities(dev: Dev) -> None:
    worker = Worker(dev.address, activities=[shout], task_queue="elsewhere")
    async with worker, await Client.connect(dev.address) as client:
        assert await client.execute_workflow("Elsewhere", "ann", id="e") == "ANN"


async def test_after_a_kill_everything_goes_on(folder: Path, dev: Dev) -> None:
    """The same client and worker, connected all the time, go on with the new process."""
    worker = Worker(dev.address, activities=[shout], task_queue="elsewhere")
    async with worker, await Client.connect(dev.address) as client:
        waiting = await client.start_workflow("Greeting", "Ann", 1, id="waiting")
        await client.execute_workflow("Elsewhere", "ann", id="done")
        dev.stop(signal.SIGKILL)
        again = Dev(folder, port=dev.port)
        try:
            await waiting.signal("add", "Bob")
            assert await waiting.result() == "hello Ann and Bob"
            assert await client.execute_workflow("Elsewhere", "bob", id="next") == "BOB"
            rows = {row.workflow_id: row async for row in client.list_workflows()}
            assert rows.keys() == {"waiting", "done", "next"}
        finally:
            again.close()
