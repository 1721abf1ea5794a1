from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import LogError, RecordRefused, Unavailable
from orchestrator.log.port import Record
from orchestrator.log.typed import Channel, Feed
from orchestrator.log.waiting import Acknowledgements, WaitingStream

SOON_S = 10.0

TEXT: Channel[str] = Channel("tasks", "worker", lambda record: (record.value or b"").decode())


def record(offset: int, worker: str = "me") -> Record:
    return Record("tasks", 3, offset, 0, b"", f"text {offset}".encode(), {"worker": worker.encode()})


class TestAcknowledgements:
    async def test_each_sender_hears_of_its_own_append(self) -> None:
        waiting = Acknowledgements(lambda: "late")
        first, second = waiting.expect(SOON_S), waiting.expect(SOON_S)
        waiting.settle(second, 7)
        waiting.fail(first, RecordRefused("no"))
        assert await second == 7
        with pytest.raises(RecordRefused, match="no"):
            await first

    async def test_who_only_hears_of_failures_hears_of_those_alone(self) -> None:
        waiting = Acknowledgements(lambda: "late")
        failures: list[Exception] = []
        waiting.settle(failures.append, 7)
        assert failures == []
        error = Unavailable("away")
        waiting.fail(failures.append, error)
        assert failures == [error]

    async def test_each_deadline_counts_and_one_timer_serves_them_all(self) -> None:
        words = "so far"
        waiting = Acknowledgements(lambda: words)
        early, kept = waiting.expect(0.01), waiting.expect(SOON_S)
        words = "nothing came"
        with pytest.raises(Unavailable, match="nothing came"):
            await early
        assert not kept.done()
        late = waiting.expect(0.01)
        waiting.settle(late, 1)
        await asyncio.sleep(0.02)
        waiting.settle(kept, 2)
        assert (await late, await kept) == (1, 2)

    async def test_what_comes_too_late_changes_nothing(self) -> None:
        waiting = Acknowledgements(lambda: "late")
        cancelled, closed = waiting.expect(SOON_S), waiting.expect(SOON_S)
        cancelled.cancel()
        waiting.fail_all("closed")
        waiting.settle(cancelled, 1)
        waiting.settle(closed, 1)
        with pytest.raises(Unavailable, match="closed"):
            await closed
        assert cancelled.cancelled()


class TestWaitingStream:
    def make(self) -> tuple[Feed[str], WaitingStream[str], list[WaitingStream[str]]]:
        feed, closed = Feed(TEXT, 3, 10), list[WaitingStream[str]]()
        return feed, WaitingStream(feed, "me", closed.append), closed

    async def test_a_reader_is_woken_by_what_is_for_it(self) -> None:
        feed, stream, _ = self.make()
        reading = asyncio.create_task(stream.next(SOON_S))
        await asyncio.sleep(0)
        feed.take([record(10, "other")])
        await asyncio.sleep(0)
        assert not reading.done()
        assert stream.offset == 11
        feed.take([record(11), record(12)])
        assert await reading == ["text 11", "text 12"]
        assert stream.offset == 13
        assert await stream.next(0) == []

    async def test_why_it_ended_stays(self) -> None:
        _, stream, closed = self.make()
        reading = asyncio.create_task(stream.next(SOON_S))
        await asyncio.sleep(0)
        stream.end(LogError("records are gone"))
        with pytest.raises(LogError, match="records are gone"):
            await reading
        await stream.close()
        await stream.close()
        with pytest.raises(LogError, match="records are gone"):
            await stream.next(0)
        assert closed[0] is stream

    async def test_a_closed_stream_is_unavailable(self) -> None:
        feed, stream, _ = self.make()
        await stream.close()
        feed.take([record(10)])
        with pytest.raises(Unavailable, match="stream is closed"):
            await stream.next(0)
