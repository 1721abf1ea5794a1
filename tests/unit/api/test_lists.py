"""Lists over HTTP, on a real engine: by hand and through the client's reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from orchestrator.activity.definition import ActivityDefinition
from orchestrator.client.client import Client
from orchestrator.errors import UsageError
from orchestrator.log.http import HttpLog
from orchestrator.log.wire import BOOKMARK_HEADER
from orchestrator.protocol.views import StuckReason
from orchestrator.worker.worker import Worker
from tests.unit.api.conftest import ADDRESS


@pytest.fixture
async def client(transport: httpx.ASGITransport) -> AsyncIterator[Client]:
    log = HttpLog(ADDRESS, transport=transport)
    async with Client(log) as client:
        yield client
    await log.close()


async def until(http: httpx.AsyncClient, path: str, holds: Callable[[Any], bool]) -> Any:
    """What is there once it holds: beats come once per second."""
    async with asyncio.timeout(30):
        while not holds(  # noqa: ASYNC110
            found := (await http.get(path)).json()
        ):
            await asyncio.sleep(0.02)  # nothing tells over HTTP when a beat has come
    return found


async def ids(client: Client, query: str) -> list[str]:
    return [row.workflow_id async for row in client.list_workflows(query)]


async def test_a_client_lists_counts_and_groups_what_it_did(client: Client) -> None:
    for number in range(3):
        await client.start_workflow("Greeting", "bad", id=f"bad-{number}")
    await client.start_workflow("Greeting", "Ann", id="ann")
    assert await ids(client, "ExecutionStatus = 'Failed'") == ["bad-2", "bad-1", "bad-0"]
    assert await ids(client, "WorkflowId = 'ann' AND CloseTime IS NULL") == ["ann"]
    counts = await client.count_workflows("WorkflowType = 'Greeting'")
    assert {(one.status.value, one.runs) for one in counts.counts} == {("Failed", 3), ("Running", 1)}
    assert (counts.runs, counts.complete) == (4, True)
    minutes = (await client.count_by_minute()).minutes
    assert sum(one.started for one in minutes) == 4
    assert sum(one.failed for one in minutes) == 3
    assert not any(one.time_ms % 60_000 or one.completed for one in minutes)
    (group,) = (await client.list_failures()).groups
    assert (group.runs, group.failure_type, group.message) == (3, "Unknown", "no such person")
    assert len(await ids(client, f"FailureGroup = '{group.fingerprint}'")) == 3
    with pytest.raises(UsageError, match="WorkflowTyp at column 1, where the field WorkflowType is expected"):
        await client.count_workflows("WorkflowTyp = 'Greeting'")


async def test_an_activity_without_workers_is_stuck_until_one_comes(
    client: Client,
    http: httpx.AsyncClient,
    greet_definition: ActivityDefinition,
    transport: httpx.ASGITransport,
) -> None:
    await client.start_workflow("Greeting", "Ann", id="ann")
    (row,) = [row async for row in client.list_stuck()]
    assert (row.workflow_id, row.reasons, row.task_queue) == ("ann", (StuckReason.NO_WORKER,), "default")
    (row,) = [row async for row in client.list_stuck(waiting=timedelta())]
    assert set(row.reasons) == {StuckReason.NO_WORKER, StuckReason.WAITING}

    log = HttpLog(ADDRESS, transport=transport)
    async with Worker(log, activities=[greet_definition]):
        assert await client.get_workflow_handle("ann").result() == "hello Ann"
        assert [row async for row in client.list_stuck(waiting=0)] == []
        cluster = await until(http, "/cluster", lambda seen: seen["coordinators"][0]["beat"]["partitions"])
        assert [seen["beat"]["task_queues"] for seen in cluster["workers"]] == [["default"]]
        assert [seen["beat"]["partitions"] for seen in cluster["coordinators"]] == [[0, 1, 2, 3]]
        assert all(one["ready"] and one["lag_records"] == 0 for one in cluster["partitions"])
        found = await until(http, "/queues", lambda found: not found["queues"][0]["waiting"])
        (queue,) = found["queues"]
        assert (queue["task_queue"], queue["workers"], queue["waiting"]) == ("default", 1, 0)
    await log.close()


async def test_an_answer_to_a_command_has_a_bookmark_that_reads_take(http: httpx.AsyncClient) -> None:
    started = await http.post("/workflows", json={"type": "Greeting", "id": "w", "input": ["Ann"]})
    bookmark = started.headers[BOOKMARK_HEADER]
    read = await http.get("/workflows", params={"bookmark": bookmark})
    assert [row["workflow_id"] for row in read.json()["rows"]] == ["w"]
    signalled = await http.post("/workflows/w/signals/add", json={"input": ["Bob"]})
    assert signalled.headers[BOOKMARK_HEADER] != bookmark
    reads = (
        "/workflows",
        "/workflow-counts",
        "/workflow-minutes",
        "/failures",
        "/stuck",
        "/workflows/w",
        "/workflows/w/history",
    )
    table = [
        ("3-x", 422, "none that an answer has given"),
        ("99-1", 422, "names partition 99"),
        ("0-999999", 503, "not shown yet"),
    ]
    for text, status, words in table:
        for path in reads:
            refused = await http.get(path, params={"bookmark": text})
            assert (refused.status_code, words in refused.json()["message"]) == (status, True), path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/workflows?q=x", "where a field"),
        ("/workflow-counts?q=x", "where a field"),
        ("/stuck?attempts=0", "attempts"),
    ],
)
async def test_what_is_wrong_is_said(http: httpx.AsyncClient, path: str, words: str) -> None:
    refused = await http.get(path)
    assert refused.status_code == 422
    assert words in refused.json()["message"]


async def test_dead_letters_of_an_engine_are_paged(http: httpx.AsyncClient) -> None:
    found = (await http.get("/dead-letters")).json()
    assert found == {"letters": [], "next_page": ""}
    assert (await http.get("/dead-letters?page=YWJj")).status_code == 422
