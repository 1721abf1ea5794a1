"""``HttpLog`` against a server that does what the test says."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable

import httpx
import msgspec
import pytest

from orchestrator.errors import (
    LogError,
    PayloadError,
    RecordRefused,
    Unavailable,
    WorkflowNotFound,
)
from orchestrator.log import wire
from orchestrator.log.http import HttpLog
from orchestrator.protocol.commands import Command, SignalWorkflow
from orchestrator.protocol.tasks import Reply, WorkerBeat

Answer = Callable[[httpx.Request], httpx.Response]


class Server:
    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: list[Answer] = []
        self.asked = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    def says(self, body: object, status: int = 200) -> None:
        self.answers.append(lambda request: httpx.Response(status, content=msgspec.json.encode(body)))

    def fails(self, error: Exception) -> None:
        def fail(request: httpx.Request) -> httpx.Response:
            raise error

        self.answers.append(fail)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.asked.set()
        await self.free.wait()
        return self.answers.pop(0)(request)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def log(server: Server) -> AsyncIterator[HttpLog]:
    log = HttpLog("http://127.0.0.1:1/", transport=httpx.MockTransport(server.handle))
    yield log
    server.fails(httpx.ConnectError("gone"))
    await log.close()


def signal(number: int, size: int = 0) -> Command:
    return SignalWorkflow(workflow_id=f"w{number}", signal_name="s" * (size + 1))


def sent(number: int) -> wire.Sent:
    return wire.Sent(problems=(None,) * number)


async def test_commands_sent_at_once_travel_together_and_in_order(server: Server, log: HttpLog) -> None:
    server.says(sent(3))
    await asyncio.gather(*[log.send(signal(number)) for number in range(3)])
    (request,) = server.requests
    assert [found["workflow_id"] for found in json.loads(request.content)] == ["w0", "w1", "w2"]


async def test_while_one_batch_is_on_its_way_the_next_gathers(server: Server, log: HttpLog) -> None:
    server.free.clear()
    server.says(sent(1))
    server.says(sent(2))
    first = asyncio.create_task(log.send(signal(0)))
    await server.asked.wait()
    rest = [asyncio.create_task(log.send(signal(number))) for number in (1, 2)]
    await asyncio.sleep(0)
    server.free.set()
    await asyncio.gather(first, *rest)
    assert [len(json.loads(request.content)) for request in server.requests] == [1, 2]


async def test_a_batch_is_bounded_by_number_and_by_size(server: Server, log: HttpLog) -> None:
    server.says(sent(wire.MAX_BATCH_COMMANDS))
    server.says(sent(1))
    await asyncio.gather(*[log.send(signal(number)) for number in range(wire.MAX_BATCH_COMMANDS + 1)])
    large = [signal(number, wire.MAX_BODY_BYTES // 3) for number in range(2)]
    server.says(sent(1))
    server.says(sent(1))
    await asyncio.gather(*map(log.send, large))
    assert len(server.requests) == 4


async def test_each_command_of_a_batch_has_its_own_outcome(server: Server, log: HttpLog) -> None:
    refused = wire.Problem(error="record-refused", message="too large")
    busy = wire.Problem(error="unavailable", message="too busy")
    server.says(wire.Sent(problems=(None, refused, busy)))
    outcomes = await asyncio.gather(*[log.send(signal(n)) for n in range(3)], return_exceptions=True)
    assert list(map(type, outcomes)) == [type(None), RecordRefused, Unavailable]


async def test_posts_travel_with_the_others_and_only_failures_are_told(server: Server, log: HttpLog) -> None:
    refused = wire.Problem(error="record-refused", message="too large")
    server.says(wire.Sent(problems=(None, refused, None)))
    failures: list[Exception] = []
    log.post(signal(0), failures.append)
    log.post(signal(1), failures.append)
    await log.send(signal(2))
    assert [type(failure) for failure in failures] == [RecordRefused]
    assert len(server.requests) == 1


async def test_an_answer_that_does_not_fit_leaves_nobody_waiting(server: Server, log: HttpLog) -> None:
    server.says(sent(1))
    outcomes = await asyncio.gather(*[log.send(signal(n)) for n in range(2)], return_exceptions=True)
    assert list(map(type, outcomes)) == [Unavailable, Unavailable]


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.RemoteProtocolError("cut off")]
)
async def test_what_did_not_arrive_is_unavailable(server: Server, log: HttpLog, error: Exception) -> None:
    server.fails(error)
    with pytest.raises(Unavailable, match=r"no answer from http://127.0.0.1:1: .*is the engine running"):
        await log.send(signal(1))


async def test_somebody_elses_answer_is_told_from_an_engine_s(server: Server, log: HttpLog) -> None:
    server.answers.append(lambda request: httpx.Response(200, text="<html>"))
    with pytest.raises(Unavailable, match="not an engine's answer"):
        await log.describe("w")


@pytest.mark.parametrize(
    ("problem", "status", "error"),
    [
        ("workflow-not-found", 404, WorkflowNotFound),
        ("payload-refused", 413, PayloadError),
        ("something-new", 503, Unavailable),
    ],
)
async def test_errors_come_back_as_they_were_raised(
    server: Server, log: HttpLog, problem: str, status: int, error: type[Exception]
) -> None:
    server.says(wire.Problem(error=problem, message="why"), status)
    with pytest.raises(error, match="why"):
        await log.describe("a/b")
    assert server.requests[0].url.raw_path.startswith(b"/api/v1/workflows/a%2Fb?")


async def test_a_stream_acknowledges_what_it_has_received(server: Server, log: HttpLog) -> None:
    server.says(wire.Opened(partition=3, offset=10))
    stream = await log.open_replies("c")
    assert stream.partition == 3
    reply = Reply(client_id="c", request_id="r")
    server.says(wire.Replies(number=1, offset=12, messages=(reply,)))
    assert await stream.next(5) == [reply]
    server.fails(httpx.ReadError("cut off"))
    with pytest.raises(Unavailable):
        await stream.next(5)
    server.says(wire.Replies(number=1, offset=12))
    assert await stream.next(500) == []
    polls = [dict(request.url.params) for request in server.requests[1:]]
    assert [poll["after"] for poll in polls] == ["0", "1", "1"]
    assert polls[-1]["wait_s"] == str(wire.MAX_WAIT_S)


async def test_a_stream_that_the_engine_forgot_is_lost(server: Server, log: HttpLog) -> None:
    server.says(wire.Opened(partition=3, offset=10))
    stream = await log.open_inbox("w")
    server.says(wire.Problem(error=wire.STREAM_GONE, message="restarted"), 404)
    with pytest.raises(LogError, match="restarted") as lost:
        await stream.next(5)
    assert not isinstance(lost.value, Unavailable)


async def test_a_beat_for_a_forgotten_inbox_ends_nothing_by_itself(server: Server, log: HttpLog) -> None:
    """The inbox says that the incarnation is over; a worker does not survive an error of its beats."""
    server.says(wire.Problem(error=wire.STREAM_GONE, message="restarted"), 404)
    beat = WorkerBeat(
        worker="w", identity="", task_queues=("q",), slots=1, running=0, inbox=0, inbox_offset=0, number=1
    )
    with pytest.raises(Unavailable, match="restarted"):
        await log.beat(beat)


async def test_closing_ends_what_waits(server: Server) -> None:
    log = HttpLog("http://127.0.0.1:1", transport=httpx.MockTransport(server.handle))
    server.free.clear()
    waiting = asyncio.create_task(log.send(signal(1)))
    await server.asked.wait()
    late = asyncio.create_task(log.send(signal(2)))
    await asyncio.sleep(0)
    await log.close()
    for task in (waiting, late):
        with pytest.raises(Unavailable, match="closed"):
            await task


class Searched:
    """A finder that finds nothing, and remembers what modules were searched for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, *_: object) -> None:
        self.names.append(name)


async def test_a_request_searches_for_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optional one that is not installed was searched for on disk, four times per request."""
    answer = msgspec.json.encode(sent(1))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    log = HttpLog(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await log.send(signal(1))
    monkeypatch.setattr(sys, "meta_path", [searched := Searched(), *sys.meta_path])
    await log.send(signal(2))
    await log.close()
    server.close()
    await server.wait_closed()
    assert searched.names == []
