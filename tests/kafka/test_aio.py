"""What only Kafka has: brokers that go away and come back, topics that refuse, records that are gone."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager

import pytest
from confluent_kafka import TopicPartition

from orchestrator import activity
from orchestrator.client.client import Client
from orchestrator.codec import avro
from orchestrator.errors import ConfigError, LogError, RecordRefused, Unavailable
from orchestrator.log.aio import Inbox
from orchestrator.log.kafka import aio, aio_reader, aio_sender
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.protocol.commands import CompleteActivity, WorkerLost
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import ActivityTask, CancelTask, Reply
from orchestrator.protocol.values import Payload
from orchestrator.worker.worker import Worker
from tests.conformance.aio.test_aio import beat, signal
from tests.kafka.broker import USERS, Broker, free_ports
from tests.kafka.raw import RawLog
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]  # a busy machine starts a broker in half a minute

SOON_S = 100.0


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@pytest.fixture
def raws() -> Iterator[Callable[[str, str], RawLog]]:
    with ExitStack() as stack:

        def make(bootstrap: str, namespace: str) -> RawLog:
            made = RawLog(bootstrap, namespace)
            stack.callback(made.close)
            return made

        yield make


@asynccontextmanager
async def opened(
    bootstrap: str, namespace: str, options: Mapping[str, str] | None = None
) -> AsyncIterator[KafkaAioLog]:
    settings = KafkaSettings(bootstrap=bootstrap, namespace=namespace, options=options or {})
    log = KafkaAioLog(settings)
    try:
        yield log
    finally:
        await log.close()


def task(raw: RawLog, inbox: Inbox, number: int) -> None:
    found = CancelTask(worker="me", run_id="r", activity_id=number, attempt=1, dispatch=1)
    raw.append("tasks", inbox.partition, avro.encode(found), headers={"worker": b"me"})


async def numbers(inbox: Inbox, count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(SOON_S):
        while len(found) < count:
            found += [delivered.task.activity_id for delivered in await inbox.next(SOON_S)]
    return found


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a user of this package reads."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("orchestrator")
    ]


class TestAtTheStart:
    async def test_no_broker_is_one_clear_message_and_soon(self) -> None:
        bootstrap = f"127.0.0.1:{free_ports(1)[0]}"
        async with opened(bootstrap, "ns") as log, asyncio.timeout(SOON_S):
            with pytest.raises(Unavailable, match=rf"no Kafka answers at {bootstrap} .*refused"):
                await log.open_replies("c")

    async def test_something_else_that_listens_there_is_told_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            bootstrap = f"127.0.0.1:{silent.getsockname()[1]}"
            async with opened(bootstrap, "ns") as log, asyncio.timeout(SOON_S):
                with pytest.raises(Unavailable, match=rf"no Kafka answers at {bootstrap}"):
                    await log.send(signal())

    async def test_a_namespace_that_was_not_set_up_is_named(self, kafka: Shared, namespace: str) -> None:
        async with opened(kafka.bootstrap, namespace) as log:
            missing = rf"no namespace '{namespace}' .*orchestrator topic create"
            with pytest.raises(ConfigError, match=missing):
                await log.open_inbox("w")
            with pytest.raises(RecordRefused, match=missing):
                await log.send(signal())

    async def test_a_user_with_the_right_password_is_let_in_and_with_a_wrong_one_is_told(
        self, make_broker: Callable[..., Broker], namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        broker = make_broker()
        raws(broker.bootstrap, namespace).create_topics()
        login = {
            "security.protocol": "sasl_plaintext",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": "alice",
            "sasl.password": USERS["alice"],
        }
        async with opened(broker.secured_bootstrap, namespace, login) as log:
            beats = await log.open_beats()
            await log.beat(beat(1))
            assert [delivered.beat for delivered in await beats.next(SOON_S)] == [beat(1)]
        async with opened(broker.secured_bootstrap, namespace, {**login, "sasl.password": "wrong"}) as log:
            with pytest.raises(ConfigError, match="refuses the login"):
                await log.open_beats()


class TestRecords:
    async def test_commands_lie_where_java_puts_them_with_the_id_as_key(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            await asyncio.gather(*(log.send(signal(name)) for name in ("21", "foobar", "order-17")))
            await log.send(WorkerLost(worker="w", partition=5))
        # 21 and foobar: test vectors of org.apache.kafka.common.utils.UtilsTest, modulo 16.
        vectors = {"21": -973932308, "foobar": -790332482}
        for name, hashed in vectors.items():
            assert partition_of(name, 16) == (hashed & 0x7FFFFFFF) % 16
        for name in (*vectors, "order-17"):
            assert name.encode() in [record.key for record in raw.read("commands", partition_of(name, 16))]
        assert WorkerLost(worker="w", partition=5) in [
            avro.decode(record.value or b"") for record in raw.read("commands", 5)
        ]

    async def test_a_record_above_the_topic_s_limit_is_refused_alone(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics(partitions=1)
        raw.configure("commands", "max.message.bytes", "20000")
        async with opened(kafka.bootstrap, namespace) as log:
            sends = [log.send(signal("w", 30_000 if number == 5 else 100)) for number in range(20)]
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
            refused = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
            assert refused == [5], outcomes
            assert isinstance(outcomes[5], RecordRefused)
            assert f"{namespace}.commands" in str(outcomes[5])
            await log.send(signal("w"))
        assert len(raw.read("commands", 0)) == 20

    async def test_too_many_that_wait_are_turned_away(
        self,
        monkeypatch: pytest.MonkeyPatch,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
    ) -> None:
        raws(kafka.bootstrap, namespace).create_topics(partitions=1)
        async with opened(kafka.bootstrap, namespace) as log:
            await log.send(signal())
            monkeypatch.setattr(aio_sender, "MAX_BACKLOG", 3)
            outcomes = await asyncio.gather(*(log.send(signal()) for _ in range(20)), return_exceptions=True)
            turned_away = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
            assert len(turned_away) == 17
            assert "wait for Kafka already" in str(turned_away[0])
            await log.send(signal())


class TestPositions:
    async def test_records_that_are_gone_end_the_stream_and_are_counted(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            for number in range(6):  # the loop stands still meanwhile: at most the first is on its way
                task(raw, inbox, number)
            place = TopicPartition(raw.full("tasks"), inbox.partition, 6)
            for deleted in raw.admin.delete_records([place]).values():
                deleted.result(SOON_S)
            with pytest.raises(LogError, match=r"records before 6 are gone"):
                await numbers(inbox, 6)
            assert log.lost_records >= 5
            again = await log.open_inbox("me")
            task(raw, again, 7)
            assert await numbers(again, 1) == [7]

    async def test_a_topic_that_was_made_anew_ends_the_stream(
        self,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            for number in range(3):
                task(raw, inbox, number)
            assert await numbers(inbox, 3) == [0, 1, 2]
            for deleted in raw.admin.delete_topics([raw.full("tasks")]).values():
                deleted.result(SOON_S)
            raw.create_topics()
            with pytest.raises(LogError, match=r"made anew"):
                await numbers(inbox, 1)

    async def test_a_consumer_that_silently_stopped_is_replaced(
        self,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(aio_reader, "CHECK_S", 0.05)
        monkeypatch.setattr(aio_reader, "POLL_MS", 50)
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            task(raw, inbox, 1)
            assert await numbers(inbox, 1) == [1]
            consumer = log._reader._consumer
            assert consumer is not None
            consumer._fetcher._fetch_task.cancel()  # as an error in it would end it
            task(raw, inbox, 2)
            assert await numbers(inbox, 1) == [2]


class TestOutages:
    async def test_everything_goes_on_after_a_kill_and_is_said_once(
        self,
        make_broker: Callable[..., Broker],
        namespace: str,
        raws: Callable[[str, str], RawLog],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(aio, "ANSWER_TIMEOUT_S", 100)  # a broker may start slowly on a busy machine
        broker = make_broker()
        raws(broker.bootstrap, namespace).create_topics()
        async with opened(broker.bootstrap, namespace) as log:
            inbox, beats = await log.open_inbox("me"), await log.open_beats()
            first = await log.beat(beat(1))
            broker.kill()
            waiting = [asyncio.ensure_future(log.send(signal(f"w{number}"))) for number in range(50)]
            while not messages(caplog):
                assert await inbox.next(0.1) == []
            await asyncio.to_thread(broker.start)
            await asyncio.wait_for(asyncio.gather(*waiting), SOON_S)
            assert await log.beat(beat(2)) > first
            found = await beats.next(SOON_S)
            while len(found) < 2:
                found += await beats.next(SOON_S)
            assert [delivered.beat for delivered in found] == [beat(1), beat(2)]
            raw = raws(broker.bootstrap, namespace)
            await asyncio.to_thread(task, raw, inbox, 3)
            assert await numbers(inbox, 1) == [3]
            records = [
                record for part in range(16) for record in await asyncio.to_thread(raw.read, "commands", part)
            ]
            assert len(records) == 50, "retries of an idempotent producer leave no duplicates"
        said = messages(caplog)
        assert [message.split(" ", 1)[0] for message in said] == ["no", "Kafka"], said
        assert "no answer from Kafka" in said[0]
        assert said[1] == f"Kafka at {broker.bootstrap} answers again"

    async def test_a_broker_that_hangs_is_unavailable_and_its_successor_is_found(
        self,
        make_broker: Callable[..., Broker],
        namespace: str,
        raws: Callable[[str, str], RawLog],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Longer than anybody waits: producer and consumer are replaced, from the bootstrap servers."""
        monkeypatch.setattr(aio, "ANSWER_TIMEOUT_S", 0.5)
        monkeypatch.setattr(aio, "REQUEST_TIMEOUT_MS", 500)
        monkeypatch.setattr(aio_reader, "CHECK_S", 0.1)
        monkeypatch.setattr(aio_reader, "CHECK_TIMEOUT_S", 0.3)
        broker = make_broker(session_ms=60_000)
        raws(broker.bootstrap, namespace).create_topics()
        async with opened(broker.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            producer, consumer = await log._sender._ready(), log._reader._consumer
            broker.pause()
            try:
                with pytest.raises(Unavailable, match="no acknowledgement"):
                    await log.send(signal("lost or late"))
                while log._reader._consumer is consumer:
                    assert await inbox.next(0.05) == []
            finally:
                broker.resume()
            async with asyncio.timeout(SOON_S):
                while True:
                    try:
                        await log.send(signal("w"))
                        break
                    except Unavailable:
                        continue
            assert log._sender._producer is not producer
            raw = raws(broker.bootstrap, namespace)
            await asyncio.to_thread(task, raw, inbox, 4)
            assert await numbers(inbox, 1) == [4]
            where = partition_of("w", 16)
            commands = await asyncio.to_thread(raw.read, "commands", where)
            assert signal("w") in [avro.decode(record.value or b"") for record in commands]

    async def test_closing_does_not_wait_for_a_broker_that_is_away(
        self,
        make_broker: Callable[..., Broker],
        namespace: str,
        raws: Callable[[str, str], RawLog],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(aio_sender, "STOP_S", 0.1)
        broker = make_broker()
        raws(broker.bootstrap, namespace).create_topics()
        async with opened(broker.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            await log.send(signal())
            broker.kill()
            sending = asyncio.ensure_future(log.send(signal()))
            reading = asyncio.ensure_future(inbox.next(SOON_S))
            await asyncio.sleep(0.05)
            async with asyncio.timeout(10):
                await log.close()
            with pytest.raises(Unavailable, match="closed before it answered"):
                await sending
            with pytest.raises(Unavailable, match="closed"):
                await reading


class TestSurprises:
    """What aiokafka may do tomorrow must not leave anybody waiting."""

    async def test_an_error_of_the_library_is_unavailable_and_the_next_send_lands(
        self,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics(partitions=1)
        async with opened(kafka.bootstrap, namespace) as log:
            await log.send(signal())
            producer = await log._sender._ready()
            monkeypatch.setattr(producer, "send_batch", None)
            with pytest.raises(Unavailable, match="TypeError"):
                await log.send(signal("lost"))
            assert "sending to Kafka failed" in caplog.text
            await log.send(signal("lands"))
        found = [avro.decode(record.value or b"").workflow_id for record in raw.read("commands", 0)]
        assert found == ["w", "lands"]

    async def test_closing_ends_an_open_that_is_under_way(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raws(kafka.bootstrap, namespace).create_topics(partitions=1)
        async with opened(kafka.bootstrap, namespace) as log:
            await log.open_beats()
            opening = asyncio.create_task(log.open_inbox("w"))
            await asyncio.sleep(0)
            await log.close()
            with pytest.raises(Unavailable):
                await opening


class TestRoles:
    async def test_a_client_asks_and_is_answered(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics(partitions=1)

        def coordinate() -> None:
            [record] = raw.wait_for("commands", 0)
            command = avro.decode(record.value or b"")
            reply = Reply(client_id=command.reply_to.client_id, request_id=command.request_id, run_id="r1")
            header = {"client": reply.client_id.encode()}
            raw.append("replies", command.reply_to.partition, avro.encode(reply), headers=header)

        address = f"kafka://{kafka.bootstrap}"
        async with await Client.connect(address, namespace=namespace) as client:
            answering = asyncio.create_task(asyncio.to_thread(coordinate))
            handle = await client.start_workflow("Order", id="order-17", timeout=SOON_S)
            assert handle.run_id == "r1"
            await answering

    async def test_a_worker_beats_runs_what_comes_and_reports(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics(partitions=1)

        def coordinate() -> bytes:
            shown = avro.decode(raw.wait_for("workers", 0)[0].value or b"")
            found = ActivityTask(
                worker=shown.worker,
                run_id="r1",
                workflow_id="w",
                workflow_type="Order",
                activity_id=1,
                activity_type="double",
                task_queue="default",
                attempt=1,
                dispatch=1,
                input=(Payload(data=b"21"),),
                dispatched_time_ms=int(time.time() * 1_000),
            )
            raw.append("tasks", shown.inbox, avro.encode(found), headers={"worker": shown.worker.encode()})
            report = avro.decode(raw.wait_for("commands", 0)[0].value or b"")
            assert isinstance(report, CompleteActivity), report
            return report.result.data

        address = f"kafka://{kafka.bootstrap}"
        async with Worker(address, activities=[double], namespace=namespace):
            assert await asyncio.wait_for(asyncio.to_thread(coordinate), SOON_S) == b"42"
        beats = [avro.decode(record.value or b"") for record in raw.read("workers", 0)]
        assert beats[-1].stopped

    async def test_a_process_of_a_namespace_that_is_not_there_ends_with_the_reason(
        self, kafka: Shared, namespace: str
    ) -> None:
        address = f"kafka://{kafka.bootstrap}"
        with pytest.raises(ConfigError, match="no namespace"):
            await Client.connect(address, namespace=namespace)
        with pytest.raises(ConfigError, match="no namespace"):
            await Worker(address, activities=[double], namespace=namespace).run()
