from __future__ import annotations

import asyncio

import pytest

from orchestrator.api import streams as module
from orchestrator.api.streams import Kind, StreamGone, Streams
from orchestrator.protocol.tasks import Reply
from tests.unit.memory_log import MemoryLog


def reply(number: int) -> Reply:
    return Reply(client_id="c", request_id=str(number))


async def opened() -> tuple[Streams, MemoryLog]:
    log = MemoryLog()
    streams = Streams(log)
    await streams.open(Kind.CLIENT, "c")
    return streams, log


async def test_a_batch_is_acknowledged_by_asking_for_the_next() -> None:
    streams, log = await opened()
    log.reply(reply(1))
    first = await streams.next(Kind.CLIENT, "c", 0, 1)
    log.reply(reply(2))
    second = await streams.next(Kind.CLIENT, "c", first.number, 1)
    assert ([r.request_id for r in first.messages], first.number) == (["1"], 1)
    assert ([r.request_id for r in second.messages], second.number) == (["2"], 2)


async def test_an_answer_that_was_lost_is_given_again() -> None:
    streams, log = await opened()
    log.reply(reply(1))
    first = await streams.next(Kind.CLIENT, "c", 0, 1)
    log.reply(reply(2))
    assert await streams.next(Kind.CLIENT, "c", 0, 1) == first


async def test_a_reader_that_asks_again_while_it_waits_gets_the_same_batch() -> None:
    streams, log = await opened()
    abandoned = asyncio.create_task(streams.next(Kind.CLIENT, "c", 0, 5))
    again = asyncio.create_task(streams.next(Kind.CLIENT, "c", 0, 5))
    await asyncio.sleep(0)
    log.reply(reply(1))
    assert await again == await abandoned


async def test_nothing_in_time_is_an_empty_batch_that_counts_for_nothing() -> None:
    streams, log = await opened()
    assert await streams.next(Kind.CLIENT, "c", 0, 0) == (0, 0, [])
    log.reply(reply(1))
    assert (await streams.next(Kind.CLIENT, "c", 0, 1)).number == 1


async def test_the_offset_of_an_inbox_is_told() -> None:
    log = MemoryLog()
    streams = Streams(log)
    told = await streams.open(Kind.WORKER, "w")
    assert (told.partition, told.offset) == (3, 0)


@pytest.mark.parametrize("after", [2, 7])
async def test_a_reader_of_an_earlier_stream_is_told_so(after: int) -> None:
    streams, _ = await opened()
    with pytest.raises(StreamGone, match=f"batch 0, not at {after}"):
        await streams.next(Kind.CLIENT, "c", after, 0)


async def test_what_was_never_opened_or_was_closed_is_gone() -> None:
    streams, log = await opened()
    await streams.close(Kind.CLIENT, "c")
    await streams.close(Kind.CLIENT, "c")
    assert log.reply_streams[0].closed
    with pytest.raises(StreamGone, match="open it again"):
        await streams.next(Kind.CLIENT, "c", 0, 0)
    with pytest.raises(StreamGone):
        streams.check(Kind.WORKER, "c")


async def test_opening_a_name_again_replaces_its_stream() -> None:
    streams, log = await opened()
    await streams.open(Kind.CLIENT, "c")
    assert [stream.closed for stream in log.reply_streams] == [True, False]


async def test_a_stream_that_nobody_asks_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, log = await opened()
    monkeypatch.setattr(module, "STREAM_IDLE_S", -1.0)
    await streams.open(Kind.CLIENT, "other")
    assert log.reply_streams[0].closed


async def test_a_stream_on_which_somebody_waits_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, log = await opened()
    waiting = asyncio.create_task(streams.next(Kind.CLIENT, "c", 0, 5))
    await asyncio.sleep(0)
    monkeypatch.setattr(module, "STREAM_IDLE_S", -1.0)
    await streams.open(Kind.CLIENT, "other")
    log.reply(reply(1))
    assert len((await waiting).messages) == 1


async def test_all_are_closed_at_the_end() -> None:
    streams, log = await opened()
    await streams.open(Kind.OBSERVER, "o")
    await streams.close_all()
    assert log.reply_streams[0].closed
    assert log.beat_streams[0].closed
