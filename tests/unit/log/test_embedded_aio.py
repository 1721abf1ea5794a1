from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.codec import avro
from orchestrator.errors import RecordRefused, Unavailable
from orchestrator.log import embedded_aio
from orchestrator.log.aio import AioLog
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.embedded_aio import EmbeddedAioLog
from orchestrator.log.faults import Fate, FaultHook
from orchestrator.log.port import Appender, Log
from orchestrator.protocol.commands import SignalWorkflow, WorkerLost
from orchestrator.protocol.tasks import CancelTask, Reply, WorkerBeat
from orchestrator.protocol.values import Payload

SOON_S = 10.0


class Faults(FaultHook):
    def __init__(self) -> None:
        self.next = Fate.LAND
        self.gate = threading.Event()
        self.gate.set()

    def fate(self, topic: str, partition: int, key: bytes) -> Fate:
        return self.next

    def before_sync(self) -> None:
        assert self.gate.wait(SOON_S)


class World:
    """A log with its asyncio side, and a coordinator's appender to answer with."""

    def __init__(self, folder: Path) -> None:
        self.faults = Faults()
        self.log = EmbeddedLog(folder, faults=self.faults)
        self.aio = EmbeddedAioLog(self.log)
        self.port: AioLog = self.aio
        self.member: Log = self.log.member()
        self.appender: Appender = self.member.appender(ordered=False)

    def task(self, partition: int, worker: str, number: int = 1) -> None:
        task = CancelTask(worker=worker, run_id="r", activity_id=number, attempt=1, dispatch=1)
        self.appender.append("tasks", partition, b"r", avro.encode(task), headers={"worker": worker.encode()})
        self.member.poll(0)

    def reply(self, partition: int, client: str, request_id: str) -> None:
        reply = Reply(client_id=client, request_id=request_id)
        self.appender.append(
            "replies", partition, b"", avro.encode(reply), headers={"client": client.encode()}
        )
        self.member.poll(0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.faults.gate.set()
    await made.aio.close()
    made.log.close()


def signal(workflow_id: str = "w", size: int = 10) -> SignalWorkflow:
    return SignalWorkflow(workflow_id=workflow_id, signal_name="s", input=(Payload(data=b"x" * size),))


def beat(number: int) -> WorkerBeat:
    return WorkerBeat(
        worker="w",
        identity="",
        task_queues=("q",),
        slots=1,
        running=0,
        inbox=0,
        inbox_offset=0,
        number=number,
    )


class TestSending:
    async def test_what_names_its_partition_lands_there(self, world: World) -> None:
        await world.port.send(WorkerLost(worker="x", partition=3))
        [record] = world.member.read("commands", 3, 0, 1_000)
        assert avro.decode(record.value or b"") == WorkerLost(worker="x", partition=3)

    async def test_sends_wait_for_durability_and_share_a_sync(self, world: World) -> None:
        world.faults.gate.clear()
        sends = [asyncio.ensure_future(world.port.send(signal())) for _ in range(10)]
        done, _ = await asyncio.wait(sends, timeout=0.05)
        assert not done
        world.faults.gate.set()
        await asyncio.wait_for(asyncio.gather(*sends), SOON_S)

    async def test_an_unknown_outcome_is_unavailable(self, world: World) -> None:
        world.faults.next = Fate.LAND_UNSEEN
        with pytest.raises(Unavailable, match="acknowledgement lost"):
            await world.port.send(signal())

    async def test_a_disk_that_does_not_answer_is_unavailable(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded_aio, "ANSWER_TIMEOUT_S", 0.01)
        world.faults.gate.clear()
        with pytest.raises(Unavailable, match="no answer"):
            await world.port.send(signal())

    async def test_too_many_that_wait_are_turned_away(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded_aio, "MAX_BACKLOG", 3)
        world.faults.gate.clear()
        sends = [asyncio.ensure_future(world.port.send(signal())) for _ in range(20)]
        await asyncio.sleep(0)
        world.faults.gate.set()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        turned_away = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert 0 < len(turned_away) < len(outcomes)
        assert "wait for the disk already" in str(turned_away[0])

    @pytest.mark.parametrize(
        ("fate", "size", "expected"),
        [
            (Fate.LAND, 2**20, RecordRefused),
            (Fate.LAND_UNSEEN, 0, Unavailable),
            (Fate.LOSE, 0, Unavailable),
        ],
    )
    async def test_a_post_that_failed_is_told(
        self, world: World, fate: Fate, size: int, expected: type[Exception]
    ) -> None:
        world.faults.next = fate
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        world.port.post(signal(size=size), failed.set_result)
        assert type(await asyncio.wait_for(failed, SOON_S)) is expected

    async def test_a_post_to_a_closed_log_fails_at_once(self, world: World) -> None:
        await world.port.close()
        failures: list[Exception] = []
        world.port.post(signal(), failures.append)
        assert [type(failure) for failure in failures] == [Unavailable]

    async def test_a_cancelled_send_harms_nobody(self, world: World) -> None:
        world.faults.gate.clear()
        cancelled = asyncio.ensure_future(world.port.send(signal()))
        other = asyncio.ensure_future(world.port.send(signal()))
        await asyncio.sleep(0)
        cancelled.cancel()
        world.faults.gate.set()
        await asyncio.wait_for(other, SOON_S)
        assert cancelled.cancelled()


class TestReading:
    async def test_a_waiting_reader_is_woken(self, world: World) -> None:
        inbox = await world.port.open_inbox("me")
        waiting = asyncio.create_task(inbox.next(SOON_S))
        await asyncio.sleep(0)
        thread = threading.Thread(target=world.task, args=(inbox.partition, "me", 7))
        thread.start()
        assert [delivered.task.activity_id for delivered in await waiting] == [7]
        thread.join()

    async def test_workers_get_partitions_of_their_own_while_there_are_any(self, world: World) -> None:
        inboxes = [await world.port.open_inbox(f"w{n}") for n in range(32)]
        assert len({inbox.partition for inbox in inboxes}) == 32
        await inboxes[0].close()
        assert (await world.port.open_inbox("again")).partition == inboxes[0].partition

    async def test_replies_go_to_their_client(self, world: World) -> None:
        first, second = await world.port.open_replies("c1"), await world.port.open_replies("c2")
        for n in range(2_500):  # more than one slice of reading
            reply = Reply(client_id="c1", request_id=str(n))
            world.appender.append(
                "replies", first.partition, b"", avro.encode(reply), headers={"client": b"c1"}
            )
        world.member.poll(0)
        world.reply(second.partition, "c2", "mine")
        replies: list[Reply] = []
        while len(replies) < 2_500:
            replies += await first.next(SOON_S)
        assert [reply.request_id for reply in replies] == [str(n) for n in range(2_500)]
        assert [reply.request_id for reply in await second.next(SOON_S)] == ["mine"]


class TestClosing:
    async def test_everything_is_unavailable_afterwards(self, world: World) -> None:
        inbox = await world.port.open_inbox("w")
        waiting = asyncio.create_task(inbox.next(SOON_S))
        world.faults.gate.clear()
        sending = asyncio.ensure_future(world.port.send(signal()))
        await asyncio.sleep(0)
        await world.port.close()
        await world.port.close()
        with pytest.raises(Unavailable, match="closed before it answered"):
            await sending
        with pytest.raises(Unavailable, match="closed"):
            await waiting
        world.faults.gate.set()
        for call in (world.port.send(signal()), world.port.beat(beat(1)), world.port.open_inbox("w")):
            with pytest.raises(Unavailable, match="closed"):
                await call

    async def test_a_log_closed_below_is_unavailable(self, world: World) -> None:
        world.log.close()
        with pytest.raises(Unavailable, match="is closed"):
            await world.port.send(signal())
        with pytest.raises(Unavailable, match="is closed"):
            await world.port.beat(beat(1))
