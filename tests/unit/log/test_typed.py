from __future__ import annotations

import logging

import pytest
from msgspec.structs import replace

from orchestrator.codec import avro
from orchestrator.errors import PayloadError
from orchestrator.log.aio import DeliveredTask
from orchestrator.log.port import Record
from orchestrator.log.typed import (
    BEAT,
    INBOX,
    REPLY,
    Feed,
    Stream,
    beat_record,
    command_record,
    least_used,
)
from orchestrator.protocol.commands import SignalWorkflow, WorkerLost
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import CancelTask, Reply, WorkerBeat


def task(worker: str, activity_id: int = 1) -> CancelTask:
    return CancelTask(worker=worker, run_id="r", activity_id=activity_id, attempt=1, dispatch=1)


def on_tasks(offset: int, worker: str, value: bytes | None = None) -> Record:
    value = avro.encode(task(worker, offset)) if value is None else value
    return Record("tasks", 3, offset, 1_000 + offset, b"", value, {"worker": worker.encode()})


def test_a_command_goes_to_the_partition_of_its_workflow_id() -> None:
    command = SignalWorkflow(workflow_id="order-17", signal_name="approve")
    record = command_record(command, 4)
    assert (record.topic, record.key) == ("commands", b"order-17")
    assert record.partition == partition_of("order-17", 4)
    assert avro.decode(record.value or b"") == command


def test_a_lost_worker_goes_to_the_partition_it_names() -> None:
    assert command_record(WorkerLost(worker="w", partition=2), 4).partition == 2


def test_a_beat_goes_to_workers() -> None:
    beat = WorkerBeat(
        worker="w", identity="", task_queues=(), slots=1, running=0, inbox=0, inbox_offset=0, number=1
    )
    record = beat_record(beat)
    assert (record.topic, record.partition, record.key) == ("workers", 0, b"w")
    feed = Feed(BEAT, 0, 0)
    stream = Stream(feed, "")
    feed.take([replace(record, offset=5, time_ms=7)])
    assert stream.take() == [(beat, 5, 7)]


def test_what_cannot_be_encoded_is_a_payload_error() -> None:
    with pytest.raises(PayloadError):
        command_record(SignalWorkflow(workflow_id="w", signal_name="\ud800"), 4)


def test_each_stream_gets_its_own_messages_and_all_of_a_name_share_one_decoding() -> None:
    decoded: list[int] = []

    def decode(record: Record) -> DeliveredTask:
        decoded.append(record.offset)
        return INBOX.decode(record)

    feed = Feed(INBOX._replace(decode=decode), 3, 10)
    first, second, twin = Stream(feed, "a"), Stream(feed, "b"), Stream(feed, "b")
    feed.take([on_tasks(10, "a"), on_tasks(11, "b"), on_tasks(12, "nobody")])
    assert [delivered.task.activity_id for delivered in first.take()] == [10]
    assert [delivered.append_time_ms for delivered in second.take()] == [1_011]
    assert len(twin.take()) == 1
    assert decoded == [10, 11]


def test_the_offset_does_not_pass_a_message_that_was_not_taken() -> None:
    feed = Feed(INBOX, 3, 10)
    idle, busy = Stream(feed, "idle"), Stream(feed, "busy")
    assert (idle.partition, idle.offset) == (3, 10)
    feed.take([on_tasks(11, "busy"), on_tasks(15, "nobody")])
    assert (idle.offset, busy.offset) == (16, 10)
    busy.take()
    assert busy.offset == 16


def test_a_closed_stream_gets_nothing() -> None:
    feed = Feed(INBOX, 3, 0)
    stream, other = Stream(feed, "a"), Stream(feed, "a")
    assert feed.readers == 2
    stream.detach()
    stream.detach()
    feed.take([on_tasks(0, "a")])
    assert (stream.take(), len(other.take())) == ([], 1)
    other.detach()
    assert feed.readers == 0


def test_a_record_that_cannot_be_decoded_is_logged_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    aside: list[tuple[int, str]] = []
    feed = Feed(INBOX, 3, 0, lambda record, reason: aside.append((record.offset, reason)))
    stream = Stream(feed, "a")
    reply = avro.encode(Reply(client_id="c", request_id="r"))
    with caplog.at_level(logging.WARNING):
        feed.take([on_tasks(0, "a", b"junk"), on_tasks(1, "a", reply), on_tasks(2, "a")])
    assert [delivered.task.activity_id for delivered in stream.take()] == [2]
    assert "tasks-3 at offset 0" in caplog.text
    assert "tasks-3 at offset 1" in caplog.text
    assert [offset for offset, _ in aside] == [0, 1]
    assert "expected one of tasks" in aside[1][1]


def test_replies_are_routed_by_client() -> None:
    feed = Feed(REPLY, 0, 0)
    stream = Stream(feed, "c")
    reply = Reply(client_id="c", request_id="r", run_id="x")
    feed.take([Record("replies", 0, 0, 0, b"", avro.encode(reply), {"client": b"c"})])
    assert stream.take() == [reply]


def test_least_used_spreads() -> None:
    used: dict[int, int] = {}
    for n in range(32):
        chosen = least_used(f"worker-{n}", used, 16)
        used[chosen] = used.get(chosen, 0) + 1
    assert set(used.values()) == {2}
    assert least_used("w", {}, 16) == least_used("w", {}, 16)
