"""Views on a real broker: replicas, restarts, commands passed on, a broker that goes away."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from orchestrator import activity, workflow
from orchestrator.api.view_server import View
from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.runtime import SystemRuntime
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.worker.worker import Worker
from orchestrator.workflow import determinism
from orchestrator.workflow.definition import definition_of
from tests.e2e.dev_process import COMMAND, TIMEOUT_S, command, environment
from tests.kafka.shared import Shared

pytestmark = pytest.mark.kafka


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class Adds:
    def __init__(self) -> None:
        self.more = 0

    @workflow.run
    async def run(self, number: int, waits: bool) -> int:
        result: int = await workflow.execute_activity(double, number, start_to_close_timeout=30)
        await workflow.wait_condition(lambda: not waits or self.more > 0)
        return result + self.more

    @workflow.signal
    def add(self, more: int) -> None:
        self.more += more

    @workflow.query
    def status(self) -> int:
        return self.more


class ViewProcess:
    """``orchestrator view`` as a process of its own."""

    def __init__(self, settings: KafkaSettings, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / "view.log"
        where = ("--log", f"kafka://{settings.bootstrap}", "--namespace", settings.namespace)
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*COMMAND, "view", *where, "--data", "data", "--port", "0"],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(),
            )
        assert self.process.stdout is not None
        stdout: IO[str] = self.process.stdout
        ready = re.match(r"ready: (http://\S+)", stdout.readline())
        assert ready, self.log.read_text()
        self.address = ready[1]

    def end(self, number: int) -> int:
        """Send a signal; returns the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"{self.address}/api/v1", timeout=30)


@pytest.fixture
def settings(kafka: Shared, namespace: str) -> KafkaSettings:
    found = KafkaSettings(bootstrap=kafka.bootstrap, namespace=namespace)
    admin.create(found, partitions=2, replicas=1)
    return found


@pytest.fixture
def coordinator(settings: KafkaSettings, tmp_path: Path) -> Iterator[Coordinator]:
    determinism.install()
    found = Coordinator(
        KafkaLog(settings, member="c"),
        tmp_path / "coordinator",
        {"Adds": definition_of(Adds)},
        SystemRuntime(),
        log_id=admin.check(settings, "coordinator").log_id,
    )
    thread = threading.Thread(target=found.run, daemon=True)
    thread.start()
    yield found
    found.stop()
    thread.join(30)
    determinism.uninstall()


@pytest.fixture
async def worker(settings: KafkaSettings, coordinator: Coordinator) -> AsyncIterator[KafkaAioLog]:
    log = KafkaAioLog(settings)
    async with Worker(log, activities=[double]):
        yield log
    await log.close()


async def until(holds: Any) -> Any:
    async with asyncio.timeout(60):
        while not (found := await holds()):  # noqa: ASYNC110 (it is in other threads and processes)
            await asyncio.sleep(0.02)
    return found


async def ready(http: httpx.AsyncClient) -> None:
    async def is_ready() -> bool:
        return (await http.get("/status")).status_code == 200

    await until(is_ready)


async def answers(http: httpx.AsyncClient) -> dict[str, Any]:
    """Everything that a view has to say of runs."""
    rows = (await http.get("/workflows")).json()["rows"]
    found: dict[str, Any] = {"rows": rows}
    for row in rows:
        path = f"/workflows/{row['workflow_id']}"
        found[row["run_id"]] = [(await http.get(path)).json(), (await http.get(f"{path}/history")).json()]
    return found


async def closed(http: httpx.AsyncClient, count: int) -> list[Any]:
    async def rows() -> Any:
        found = (await http.get("/workflows", params={"status": "Completed"})).json()["rows"]
        return found if len(found) == count else None

    found: list[Any] = await until(rows)
    return found


async def test_a_workflow_through_a_view_and_the_same_answers_from_every_replica(
    settings: KafkaSettings, worker: KafkaAioLog, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        first = ViewProcess(settings, tmp_path / "first")
        stack.callback(first.end, signal.SIGKILL)
        http = await stack.enter_async_context(first.http())
        await ready(http)
        for number in range(6):
            body = {"type": "Adds", "id": f"w-{number}", "input": [number, number % 2 == 0]}
            assert (await http.post("/workflows", json=body)).status_code == 201
            assert (await http.get(f"/workflows/w-{number}")).status_code == 200
        assert (await http.post("/workflows/w-0/queries/status", json={})).json() == {"result": 0}
        await closed(http, 3)
        assert (await http.post("/workflows/w-0/signals/add", json={"input": [5]})).status_code == 204
        await closed(http, 4)
        result = (await http.get("/workflows/w-0/result", params={"wait_s": 10})).json()
        assert result["result"] == 5
        expected = await answers(http)
        assert len(expected["rows"]) == 6

        listed = command("workflow", "list", "-o", "ids", folder=tmp_path, address=first.address)
        assert sorted(listed.stdout.split()) == [f"w-{number}" for number in range(6)]
        status = (await http.get("/status")).json()
        assert [found["beat"]["activity_types"] for found in status["workers"]] == [["double"]]

        later = ViewProcess(settings, tmp_path / "later")
        stack.callback(later.end, signal.SIGKILL)
        other = await stack.enter_async_context(later.http())
        await ready(other)
        assert await answers(other) == expected, "a replica that begins afterwards"

        assert later.end(signal.SIGTERM) == 0
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        again = ViewProcess(settings, tmp_path / "first")
        stack.callback(again.end, signal.SIGKILL)
        http = await stack.enter_async_context(again.http())
        await ready(http)
        assert await answers(http) == expected, "a replica that was killed and goes on"


async def test_a_view_waits_for_a_broker_that_is_away(make_broker: Any, tmp_path: Path) -> None:
    broker = await asyncio.to_thread(make_broker)
    settings = KafkaSettings(bootstrap=broker.bootstrap, namespace="away")
    await asyncio.to_thread(admin.create, settings, partitions=1, replicas=1)
    log_id = admin.check(settings, "view").log_id
    log = KafkaLog(settings, member="v")
    view = View(log, tmp_path / "view", log_id=log_id, explain=log.trouble)

    async def is_ready() -> bool:
        return view.materializer.ready

    async def in_trouble() -> str:
        return view.materializer.status().trouble

    async def well() -> bool:
        return not view.materializer.status().trouble

    await until(is_ready)
    await asyncio.to_thread(broker.kill)
    assert "does not answer" in await until(in_trouble)
    assert view.reader.list_runs().rows == (), "what is known is shown meanwhile"
    await asyncio.to_thread(broker.start)
    await until(well)
    assert view.error is None
    await asyncio.to_thread(view.close)
