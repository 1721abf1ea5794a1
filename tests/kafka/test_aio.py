"""What only Kafka has: brokers that go away and come back, topics that refuse, records that are gone."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from orchestrator import activity
from orchestrator.client.client import Client
from orchestrator.codec import avro
from orchestrator.errors import ConfigError, LogError, RecordRefused, Unavailable
from orchestrator.log.aio import Inbox
from orchestrator.log.kafka import aio, aio_reader, aio_sender, intake
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.protocol.commands import CompleteActivity, WorkerLost
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import ActivityTask, CancelTask, Reply
from orchestrator.protocol.values import Payload
from orchestrator.worker.worker import Worker
from tests.conformance.aio.test_aio import beat, signal
from tests.kafka.broker import USERS, Broker, free_ports
from tests.kafka.proxy import Api, Fault, Proxy, Side
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


def threads() -> list[str]:
    """Those of ours that speak to Kafka."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kafka-")]


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

    async def test_no_right_on_a_group_is_needed_and_nothing_is_said_of_it(
        self,
        make_broker: Callable[..., Broker],
        namespace: str,
        raws: Callable[[str, str], RawLog],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        broker = make_broker()
        raw = raws(broker.bootstrap, namespace)
        raw.create_topics()
        bob = "User:bob", "*", AclOperation.ALL, AclPermissionType.ALLOW
        group = AclBinding(ResourceType.GROUP, f"{namespace}.", ResourcePatternType.PREFIXED, *bob)
        for done in raw.admin.create_acls([group]).values():
            done.result(SOON_S)
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
        assert messages(caplog) == []

    async def test_what_only_a_consumer_refuses_is_told_to_who_reads(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raws(kafka.bootstrap, namespace).create_topics(partitions=1)
        options = {"session.timeout.ms": "900000"}  # more than max.poll.interval.ms
        async with opened(kafka.bootstrap, namespace, options) as log:
            with pytest.raises(ConfigError, match=r"refuses its settings: .*max\.poll\.interval"):
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
        proxy: Proxy,
        namespace: str,
        raws: Callable[[str, str], RawLog],
    ) -> None:
        raws(kafka.bootstrap, namespace).create_topics(partitions=1)
        monkeypatch.setattr(aio_sender, "MAX_BACKLOG", 3)
        async with opened(proxy.bootstrap, namespace) as log:
            await log.send(signal())
            with proxy.rule(Side.RESPONSE, Fault.HOLD, api=Api.PRODUCE):
                sends = [asyncio.ensure_future(log.send(signal())) for _ in range(20)]
                turned_away, waiting = await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
            assert len(turned_away) == 17
            for send in turned_away:
                assert isinstance(send.exception(), Unavailable)
                assert "wait for Kafka already" in str(send.exception())
            await asyncio.gather(*waiting)
            await log.send(signal())

    async def test_an_answer_that_got_lost_costs_neither_order_nor_records(
        self, kafka: Shared, proxy: Proxy, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        """What is repeated may stand there twice: it has a request id."""
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics(partitions=1)
        async with opened(proxy.bootstrap, namespace) as log:
            await log.send(signal("w0"))
            with proxy.rule(Side.RESPONSE, Fault.CUT, api=Api.PRODUCE, times=1) as lost:
                sends = [log.send(signal(f"w{number}")) for number in range(1, 30)]
                await asyncio.to_thread(lost.wait)
            sends += [log.send(signal(f"w{number}")) for number in range(30, 40)]
            await asyncio.wait_for(asyncio.gather(*sends), SOON_S)
        found = [(record.key or b"").decode() for record in raw.read("commands", 0)]
        assert len(found) > 40, "the lost answer was of a batch that had landed"
        assert list(dict.fromkeys(found)) == [f"w{number}" for number in range(40)]


class TestPositions:
    async def test_records_that_are_gone_end_the_stream_and_are_counted(
        self, kafka: Shared, proxy: Proxy, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(proxy.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            with proxy.rule(Side.RESPONSE, Fault.HOLD, api=Api.FETCH) as held:
                await asyncio.to_thread(task, raw, inbox, 0)
                await asyncio.to_thread(held.wait)  # at most the first is on its way
                for number in range(1, 6):
                    await asyncio.to_thread(task, raw, inbox, number)
                place = TopicPartition(raw.full("tasks"), inbox.partition, 6)
                for deleted in raw.admin.delete_records([place]).values():
                    await asyncio.to_thread(deleted.result, SOON_S)
            with pytest.raises(LogError, match=r"records are gone"):
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

    async def test_a_consumer_that_failed_is_replaced_and_nothing_is_missed(
        self,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(aio_reader, "AGAIN_S", 0.05)
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            task(raw, inbox, 1)
            assert await numbers(inbox, 1) == [1]
            monkeypatch.setattr(intake, "BATCH_RECORDS", 0)  # which the client refuses by an exception
            task(raw, inbox, 2)
            while not messages(caplog):
                assert await inbox.next(0.05) == []
            monkeypatch.setattr(intake, "BATCH_RECORDS", 500)
            task(raw, inbox, 3)
            assert await numbers(inbox, 2) == [2, 3]
        assert messages(caplog) == ["reading from Kafka failed; it begins again where it was"]

    async def test_a_record_that_a_decoder_fails_on_is_skipped_alone(
        self,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        decode = avro.decode

        def failing(*arguments: Any) -> Any:
            found = decode(*arguments)
            if getattr(found, "activity_id", None) == 2:
                raise ZeroDivisionError
            return found

        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            monkeypatch.setattr(avro, "decode", failing)
            for number in (1, 2, 3):
                task(raw, inbox, number)
            assert await numbers(inbox, 2) == [1, 3]
        assert messages(caplog) == ["a record was skipped: it could not be handed out"]

    async def test_a_partition_is_read_from_its_end_by_who_comes_after_all_have_left(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            first = await log.open_inbox("me")
            task(raw, first, 1)
            assert await numbers(first, 1) == [1]
            given_up = asyncio.create_task(log.open_inbox("me"))
            await first.close()
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            task(raw, first, 2)
            second, third = await asyncio.gather(log.open_inbox("me"), log.open_inbox("me"))
            assert second.partition != third.partition, "each takes the partition that is used least"
            [mine] = [inbox for inbox in (second, third) if inbox.partition == first.partition]
            assert mine.offset == 2
            task(raw, mine, 3)
            assert await numbers(mine, 1) == [3]
        assert log.lost_records == 0

    async def test_a_loop_that_is_busy_gets_what_it_missed(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        count = 4 * intake.BATCH_RECORDS
        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            for number in range(count):  # the loop stands still meanwhile
                task(raw, inbox, number)
            assert await numbers(inbox, count) == list(range(count))


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
            assert {record.key for record in records} == {b"w%d" % number for number in range(50)}
        said = messages(caplog)
        assert len(said) == 2, said
        assert said[0].startswith(f"Kafka at {broker.bootstrap} is waited for: ")
        assert said[1] == f"Kafka at {broker.bootstrap} answers again"

    async def test_a_broker_that_hangs_is_unavailable_and_work_goes_on_after_it(
        self,
        make_broker: Callable[..., Broker],
        namespace: str,
        raws: Callable[[str, str], RawLog],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(aio, "ANSWER_TIMEOUT_S", 0.5)
        broker = make_broker(session_ms=60_000)
        raws(broker.bootstrap, namespace).create_topics()
        async with opened(broker.bootstrap, namespace, {"socket.timeout.ms": "1000"}) as log:
            inbox = await log.open_inbox("me")
            broker.pause()
            try:
                with pytest.raises(Unavailable, match="no acknowledgement"):
                    await log.send(signal("lost or late"))
            finally:
                broker.resume()
            async with asyncio.timeout(SOON_S):
                while True:
                    try:
                        await log.send(signal("w"))
                        break
                    except Unavailable:
                        continue
            raw = raws(broker.bootstrap, namespace)
            await asyncio.to_thread(task, raw, inbox, 4)
            assert await numbers(inbox, 1) == [4]
            where = partition_of("w", 16)
            commands = await asyncio.to_thread(raw.read, "commands", where)
            assert signal("w") in [avro.decode(record.value or b"") for record in commands]

    async def test_brokers_that_moved_are_found_by_the_addresses_one_was_given(
        self, make_broker: Callable[..., Broker], namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        broker = make_broker(proxied=2)
        raws(broker.bootstrap, namespace).create_topics()
        old, new = broker.proxied
        with Proxy(old) as before:
            both = f"{before.bootstrap},127.0.0.1:{new.advertised}"
            async with opened(both, namespace) as log:
                inbox = await log.open_inbox("me")
                await log.send(signal("w1"))
                with Proxy(new):
                    before.close()
                    await asyncio.wait_for(log.send(signal("w2")), SOON_S)
                    raw = raws(broker.bootstrap, namespace)
                    await asyncio.to_thread(task, raw, inbox, 1)
                    assert await numbers(inbox, 1) == [1]
                    await log.close()

    async def test_closing_does_not_wait_for_a_broker_that_is_away(
        self,
        make_broker: Callable[..., Broker],
        namespace: str,
        raws: Callable[[str, str], RawLog],
    ) -> None:
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
            assert threads() == []


class TestClosing:
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
            assert threads() == []


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
