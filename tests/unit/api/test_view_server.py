"""A view beside a coordinator: two members of one log. Clients and workers speak HTTP to the view alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.activity.definition import ActivityDefinition
from orchestrator.api import view_server
from orchestrator.api.embedded import Engine
from orchestrator.api.server import bind
from orchestrator.api.view_server import View, serving_view
from orchestrator.errors import Unavailable
from orchestrator.log.http import HttpLog
from orchestrator.log.topics import COMMANDS, DEAD_LETTERS
from orchestrator.log.wire import BOOKMARK_HEADER
from orchestrator.store.partition_store import PartitionStore
from orchestrator.view import materializer
from orchestrator.worker.worker import Worker

from .conftest import Greeting


class Pair:
    """An engine, and a view that only reads its log; HTTP is the view's."""

    def __init__(self, engine: Engine, view: View, http: httpx.AsyncClient) -> None:
        self.engine, self.view, self.http = engine, view, http

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.http.get(path, params=params)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def post(self, path: str, **body: Any) -> Any:
        answer = await self.http.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def append(self, topic: str, value: bytes) -> None:
        """Some producer writes a record."""
        member = self.engine.log.member()
        member.appender(ordered=False).append(topic, 0, b"k", value)
        member.poll(0)
        member.close()


async def until(holds: Any) -> None:
    """Wait for a state that other threads come to."""
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110 (it is in other threads)
            await asyncio.sleep(0.01)


@pytest.fixture
async def pair(tmp_path: Path, greet_definition: ActivityDefinition) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        engine = await asyncio.to_thread(Engine, tmp_path / "engine", [Greeting])
        stack.push_async_callback(asyncio.to_thread, engine.close)
        await engine.wait_ready()
        view = View(engine.log.member(), tmp_path / "view", log_id=engine.log.cluster_id)
        stack.push_async_callback(asyncio.to_thread, view.close)
        aio = engine.aio()
        stack.push_async_callback(aio.close)
        taken = bind("127.0.0.1", 0)
        await stack.enter_async_context(serving_view(view, aio, taken))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        gateway = HttpLog(address)
        stack.push_async_callback(gateway.close)
        await stack.enter_async_context(Worker(gateway, activities=[greet_definition]))
        base = f"{address}/api/v1"
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=base, timeout=30))

        async def ready() -> bool:
            return (await http.get("/status")).status_code == 200

        await until(ready)
        yield Pair(engine, view, http)


async def test_a_workflow_from_start_to_history(pair: Pair) -> None:
    started = await pair.post("/workflows", type="Greeting", id="w", input=["Ann", 1])
    assert (await pair.get("/workflows/w"))["row"]["run_id"] == started["run_id"]
    assert (await pair.post("/workflows/w/queries/count"))["result"] == 0
    await pair.post("/workflows/w/signals/add", input=["Bob"])

    async def closed() -> bool:
        return (await pair.http.get("/workflows/w/result", params={"wait_s": 5})).status_code == 200

    await until(closed)
    assert (await pair.get("/workflows/w/result"))["result"] == "hello Ann and Bob"
    history = await pair.get("/workflows/w/history")
    kinds = [event["event"] for turn in history["turns"] for event in turn["events"]]
    assert (kinds[0], kinds[-1]) == ("WorkflowStarted", "WorkflowCompleted")
    assert [row["workflow_id"] for row in (await pair.get("/workflows"))["rows"]] == ["w"]


async def test_a_view_serves_the_page(pair: Pair) -> None:
    started = await pair.post("/workflows", type="Greeting", id="w", input=["Ann", 1])
    await pair.get("/workflows/w")
    root = pair.http.base_url.copy_with(path="/")
    assert f'/workflows/w/{started["run_id"]}"' in (await pair.http.get(root.join("/workflows"))).text
    for path in ("/", "/failures", "/stuck", "/queues", "/cluster"):
        page = await pair.http.get(root.join(path))
        assert (page.status_code, page.text[:15]) == (200, "<!doctype html>")


async def test_what_was_just_started_is_never_unknown(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the view reads on only when somebody asks for what it does not know."""
    original = materializer.Materializer.step

    def lazy(self: materializer.Materializer, timeout_s: float) -> None:
        if self._asked or self._questions:
            original(self, timeout_s)
        else:
            self._stopping.wait(0.001)

    monkeypatch.setattr(materializer.Materializer, "step", lazy)
    for number in range(10):
        await pair.post("/workflows", type="Greeting", id=f"w-{number}", input=["Ann", 1])
        assert (await pair.get(f"/workflows/w-{number}"))["row"]["status"] == "Running"
        body = {"type": "Greeting", "id": f"v-{number}", "input": ["Ann", 1]}
        bookmark = (await pair.http.post("/workflows", json=body)).headers[BOOKMARK_HEADER]
        listed = (await pair.http.get("/workflows", params={"bookmark": bookmark, "limit": 1})).json()
        assert [row["workflow_id"] for row in listed["rows"]] == [f"v-{number}"]


async def test_what_was_never_started_is(pair: Pair) -> None:
    answer = await pair.http.get("/workflows/nobody")
    assert (answer.status_code, answer.json()["message"]) == (404, "there is no workflow id 'nobody'")


async def test_the_view_answers_as_the_coordinators_own_stores(pair: Pair) -> None:
    for number in range(10):
        await pair.post("/workflows", type="Greeting", id=f"w-{number}", input=["Ann", number % 2])
    for number in range(3):
        await pair.post("/workflows", type="Greeting", id=f"bad-{number}", input=["bad"])
    rows = pair.engine.reader.list_runs

    async def same() -> bool:
        found = pair.view.reader.list_runs()
        return found == rows() and sum(row.status == "Completed" for row in found.rows) == 5

    await until(same)
    for row in rows().rows:
        arguments = row.workflow_id, row.run_id
        assert pair.view.reader.describe(*arguments) == pair.engine.reader.describe(*arguments)
        assert pair.view.reader.history(*arguments) == pair.engine.reader.history(*arguments)
    assert pair.view.reader.failures().groups[0].runs == 3
    own, folded = (indexes_of(stores) for stores in (pair.engine._stores(), pair.view.materializer.stores()))
    assert len(own) > 13 * 4
    assert own == folded


def indexes_of(stores: Sequence[PartitionStore | None]) -> list[tuple[bytes, bytes]]:
    """All rows of indexes and counters, partition by partition."""
    return [
        row
        for store in stores
        if store is not None
        for prefix in (b"s", b"a", b"b", b"w", b"h", b"j", b"n", b"q", b"k")
        for row in store.scan(prefix, bytes([prefix[0] + 1]))
    ]


async def test_a_worker_that_speaks_http_to_the_view_is_seen(pair: Pair) -> None:
    """It is the one that runs the activities of all tests here."""

    async def seen() -> bool:
        return [seen["beat"]["activity_types"] for seen in (await pair.get("/status"))["workers"]] == [
            ["greet"]
        ]

    await until(seen)


async def test_a_view_tells_of_itself(pair: Pair) -> None:
    pair.append(COMMANDS, b"garbage")
    pair.append(DEAD_LETTERS, b"garbage too")

    async def told() -> Any:
        status = await pair.get("/status")
        return status["dead_letters"] == 2 and status["coordinators"]

    await until(told)
    letters = (await pair.get("/dead-letters"))["letters"]
    assert {letter["topic"] for letter in letters} == {"commands", "dead-letters"}
    assert len((await pair.get("/dead-letters", limit=1))["letters"]) == 1
    status = await pair.get("/status")
    assert [(found["partition"], found["ready"]) for found in status["partitions"]] == [
        (number, True) for number in range(4)
    ]
    assert [found["beat"]["partitions"] for found in status["coordinators"]] == [[0, 1, 2, 3]]
    paths = (await pair.http.get("/openapi.json".join(str(pair.http.base_url).split("/api/v1/")))).json()[
        "paths"
    ]
    assert {"/api/v1/status", "/api/v1/dead-letters"} <= set(paths)


async def test_a_view_that_cannot_be_asked_yet_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materializer.Materializer, "step", lambda self, timeout_s: self._stopping.wait(0.01))
    engine = await asyncio.to_thread(Engine, tmp_path / "engine", [Greeting])
    await engine.wait_ready()
    view = View(engine.log.member(), tmp_path / "view", log_id=engine.log.cluster_id)
    aio, taken = engine.aio(), bind("127.0.0.1", 0)
    base = f"http://127.0.0.1:{taken.getsockname()[1]}/api/v1"
    async with serving_view(view, aio, taken), httpx.AsyncClient(base_url=base) as http:
        assert (await http.get("/status")).status_code == 503
        for path in ("/workflows", "/workflows/w"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    await asyncio.to_thread(view.close)
    await aio.close()
    await asyncio.to_thread(engine.close)


async def test_why_a_view_has_ended_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, timeout_s: float) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(materializer.Materializer, "step", broken)
    engine = await asyncio.to_thread(Engine, tmp_path / "engine", [Greeting])
    view = View(engine.log.member(), tmp_path / "view", log_id=engine.log.cluster_id)

    async def ended() -> bool:
        return view.error is not None

    await until(ended)
    assert str(view.error) == "a bug"
    await asyncio.to_thread(view.close)
    await asyncio.to_thread(engine.close)


async def test_a_view_without_its_log_is_not_ready(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows what was, and goes on when the log is there again; a restart would not help."""

    async def answers() -> dict[str, tuple[int, str]]:
        found = [await pair.http.get(pair.http.base_url.join(path)) for path in ("/live", "/ready")]
        return {answer.url.path: (answer.status_code, answer.text) for answer in found}

    def away(timeout_s: float) -> Any:
        raise Unavailable("the broker is gone; start it")

    monkeypatch.setattr(materializer, "RETRY_S", 0.01)
    monkeypatch.setattr(pair.view.materializer._log, "poll", away)

    async def told() -> bool:
        return await answers() == {"/live": (200, "ok\n"), "/ready": (503, "the broker is gone; start it\n")}

    await until(told)
    monkeypatch.undo()

    async def well() -> bool:
        return await answers() == {"/live": (200, "ok\n"), "/ready": (200, "ok\n")}

    await until(well)


async def test_a_view_tells_its_operators_how_it_stands(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(path: str) -> httpx.Response:
        return await pair.http.get(pair.http.base_url.join(path))

    pair.append(COMMANDS, b"garbage")

    async def counts() -> bool:
        return "orchestrator_view_dead_letters 1.0\n" in (await ask("/metrics")).text

    await until(counts)
    shown = (await ask("/metrics")).text
    assert 'orchestrator_view_ready{partition="0"} 1.0' in shown
    assert 'orchestrator_view_lag_records{partition="0"} 0.0' in shown
    assert 'orchestrator_info{role="view"' in shown
    assert [(await ask(path)).text for path in ("/live", "/ready")] == ["ok\n", "ok\n"]
    monkeypatch.setattr(view_server, "SILENT_S", -1.0)
    assert (await ask("/live")).text == "the view's loop has not turned for 0 s\n"
    monkeypatch.undo()
    pair.view.error = RuntimeError("no disk")
    assert [(await ask(path)).status_code for path in ("/live", "/ready")] == [503, 503]
    pair.view.error = None
