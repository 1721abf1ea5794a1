"""What every log promises clients and workers by ``orchestrator/log/aio.py``."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.codec import avro
from orchestrator.errors import RecordRefused, Unavailable
from orchestrator.log.aio import AioLog
from orchestrator.protocol.commands import SignalWorkflow
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import Reply, WorkerBeat
from orchestrator.protocol.values import Payload
from tests.conformance.aio.harness import PARTITIONS, Harness

SOON_S = 20.0


def signal(workflow_id: str = "w", size: int = 10) -> SignalWorkflow:
    return SignalWorkflow(workflow_id=workflow_id, signal_name="s", input=(Payload(data=b"x" * size),))


def beat(number: int, worker: str = "w") -> WorkerBeat:
    return WorkerBeat(
        worker=worker,
        identity="",
        task_queues=("q",),
        slots=1,
        running=0,
        inbox=0,
        inbox_offset=0,
        number=number,
    )


class TestSending:
    async def test_a_command_is_durable_on_its_partition(self, harness: Harness, port: AioLog) -> None:
        await asyncio.gather(*(port.send(signal(f"w-{n}")) for n in range(100)))
        found = await harness.commands()
        assert sum(map(len, found.values())) == 100
        for partition, records in found.items():
            for record in records:
                assert partition_of(record.key.decode(), PARTITIONS) == partition
                assert avro.decode(record.value or b"").workflow_id == record.key.decode()

    async def test_commands_of_a_partition_stand_in_the_order_of_the_calls(
        self, harness: Harness, port: AioLog
    ) -> None:
        sent = [signal("w", size) for size in range(300)]
        await asyncio.gather(*map(port.send, sent))
        records = await harness.read("commands", partition_of("w", PARTITIONS))
        assert [avro.decode(record.value or b"") for record in records] == sent

    async def test_a_command_that_is_too_large_is_refused_with_sizes(self, port: AioLog) -> None:
        with pytest.raises(RecordRefused, match=r"the record has \d+ bytes, at most 1048576 are allowed"):
            await port.send(signal(size=2**20))

    async def test_a_large_command_harms_none_beside_it(self, harness: Harness, port: AioLog) -> None:
        large = signal("w", 2**20 - 200)
        await asyncio.gather(port.send(signal("w")), port.send(large), port.send(signal("w")))
        records = await harness.read("commands", partition_of("w", PARTITIONS))
        assert [avro.decode(record.value or b"") for record in records] == [signal("w"), large, signal("w")]

    async def test_a_post_lands_and_says_nothing(self, harness: Harness, port: AioLog) -> None:
        failures: list[Exception] = []
        port.post(signal("first"), failures.append)
        await port.send(signal("first"))
        assert len(await harness.read("commands", partition_of("first", PARTITIONS))) == 2
        assert not failures

    async def test_a_post_that_is_refused_is_told(self, port: AioLog) -> None:
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        port.post(signal(size=2**20), failed.set_result)
        assert type(await asyncio.wait_for(failed, SOON_S)) is RecordRefused

    async def test_a_cancelled_send_harms_nobody(self, harness: Harness, port: AioLog) -> None:
        cancelled = asyncio.ensure_future(port.send(signal()))
        other = asyncio.ensure_future(port.send(signal()))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait_for(other, SOON_S)
        assert cancelled.cancelled()
        await port.send(signal())


class TestReading:
    async def test_an_inbox_begins_at_the_end_and_filters(self, harness: Harness, port: AioLog) -> None:
        for partition in range(32):
            await harness.task(partition, "me", 1)
        inbox = await port.open_inbox("me")
        before = inbox.offset
        assert before == await harness.end("tasks", inbox.partition)
        await harness.task(inbox.partition, "other", 2)
        await harness.task(inbox.partition, "me", 3)
        [delivered] = await inbox.next(SOON_S)
        assert delivered.task.activity_id == 3
        assert delivered.append_time_ms > 0
        assert inbox.offset == before + 2
        assert await inbox.next(0) == []

    async def test_what_was_appended_when_opening_returned_is_brought(
        self, harness: Harness, port: AioLog
    ) -> None:
        """So an answer cannot come before its reader."""
        for name in ("a", "b", "c"):
            stream = await port.open_replies(name)
            await harness.reply(stream.partition, name, name)
            assert [reply.request_id for reply in await stream.next(SOON_S)] == [name]

    async def test_an_idle_inbox_passes_what_is_not_for_it(self, harness: Harness, port: AioLog) -> None:
        inbox = await port.open_inbox("me")
        await harness.task(inbox.partition, "other")
        end = await harness.end("tasks", inbox.partition)
        async with asyncio.timeout(SOON_S):
            while inbox.offset != end:
                assert await inbox.next(0.001) == []

    async def test_a_waiting_reader_is_woken(self, harness: Harness, port: AioLog) -> None:
        inbox = await port.open_inbox("me")
        waiting = asyncio.create_task(inbox.next(SOON_S))
        await asyncio.sleep(0)
        await harness.task(inbox.partition, "me", 7)
        assert [delivered.task.activity_id for delivered in await waiting] == [7]

    async def test_workers_get_partitions_of_their_own_while_there_are_any(self, port: AioLog) -> None:
        inboxes = [await port.open_inbox(f"w{n}") for n in range(6)]
        assert len({inbox.partition for inbox in inboxes}) == 6

    async def test_a_closed_inbox_leaves_its_partition(self, port: AioLog) -> None:
        first = await port.open_inbox("w")
        second = await port.open_inbox("w2")
        await first.close()
        assert (await port.open_inbox("w")).partition == first.partition != second.partition

    async def test_replies_go_to_their_client(self, harness: Harness, port: AioLog) -> None:
        first, second = await port.open_replies("c1"), await port.open_replies("c2")
        for n in range(20):
            await harness.reply(first.partition, "c1", str(n))
            await harness.reply(first.partition, "c2", "on another's partition")
        await harness.reply(second.partition, "c2", "mine")
        replies: list[Reply] = []
        while len(replies) < 20:
            replies += await first.next(SOON_S)
        assert [reply.request_id for reply in replies] == [str(n) for n in range(20)]
        assert [reply.request_id for reply in await second.next(SOON_S)] == ["mine"]

    async def test_what_cannot_be_decoded_is_skipped(self, harness: Harness, port: AioLog) -> None:
        stream = await port.open_replies("c1")
        await harness.append("replies", stream.partition, b"no Avro", {"client": b"c1"})
        await harness.reply(stream.partition, "c1", "next")
        assert [reply.request_id for reply in await stream.next(SOON_S)] == ["next"]

    async def test_beats_have_offsets_that_readers_see(self, harness: Harness, port: AioLog) -> None:
        await port.open_inbox("w")
        beats = await port.open_beats()
        offsets = [await port.beat(beat(n)) for n in range(3)]
        other = await harness.coordinator_beat()
        found = await beats.next(SOON_S)
        while len(found) < 4:
            found += await beats.next(SOON_S)
        assert [delivered.offset for delivered in found[:3]] == offsets
        assert [delivered.beat for delivered in found] == [beat(0), beat(1), beat(2), other]

    async def test_a_closed_stream_says_so_and_its_neighbour_goes_on(
        self, harness: Harness, port: AioLog
    ) -> None:
        one, two = await port.open_beats(), await port.open_beats()
        await one.close()
        await one.close()
        with pytest.raises(Unavailable, match="stream is closed"):
            await one.next(SOON_S)
        await harness.coordinator_beat()
        assert len(await two.next(SOON_S)) == 1

    async def test_streams_are_read_after_all_were_closed(self, harness: Harness, port: AioLog) -> None:
        await (await port.open_beats()).close()
        again = await port.open_beats()
        await harness.coordinator_beat()
        assert len(await again.next(SOON_S)) == 1


class TestClosing:
    async def test_everything_is_unavailable_afterwards(self, port: AioLog) -> None:
        inbox = await port.open_inbox("w")
        await port.send(signal())
        await port.close()
        await port.close()
        for call in (inbox.next(0), port.send(signal()), port.beat(beat(1)), port.open_inbox("w")):
            with pytest.raises(Unavailable):
                await call

    async def test_a_post_is_told_that_it_failed(self, port: AioLog) -> None:
        await port.close()
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        port.post(signal(), failed.set_result)
        assert type(await asyncio.wait_for(failed, SOON_S)) is Unavailable
