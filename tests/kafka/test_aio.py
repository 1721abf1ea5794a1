"""What only Kafka has: brokers that go away and come back, topics and users that are refused."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
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
from orchestrator.errors import ConfigError, RecordRefused, Unavailable
from orchestrator.log.kafka import aio, aio_sender
from orchestrator.protocol.commands import CompleteActivity, WorkerLost
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import ActivityTask, Reply
from orchestrator.protocol.values import Payload
from orchestrator.worker.worker import Worker
from tests.conformance.aio.test_aio import beat, signal
from tests.kafka.broker import USERS, Broker, free_ports
from tests.kafka.opened import SOON_S, messages, numbers, opened, task, threads
from tests.kafka.proxy import Api, Fault, Proxy, Side
from tests.kafka.raw import RawLog
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]  # a busy machine starts a broker in half a minute


@activity.defn
async def double(number: int) -> int:
    return 2 * number


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

    async def test_a_request_that_got_lost_is_repeated_before_what_came_after_it(
        self, kafka: Shared, proxy: Proxy, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics(partitions=1)
        impatient = {"socket.timeout.ms": "1000", "request.timeout.ms": "1000"}
        async with opened(proxy.bootstrap, namespace, impatient) as log:
            await log.send(signal("w0"))
            with proxy.rule(Side.REQUEST, Fault.DROP, api=Api.PRODUCE, times=1) as lost:
                sends = [log.send(signal("w1"))]
                await asyncio.to_thread(lost.wait)
                sends += [log.send(signal(f"w{number}")) for number in range(2, 9)]
                await asyncio.wait_for(asyncio.gather(*sends), SOON_S)
        found = [(record.key or b"").decode() for record in raw.read("commands", 0)]
        assert found == [f"w{number}" for number in range(9)]

    async def test_an_answer_that_got_lost_costs_no_record(
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
