"""What the proxy does to clients, and what it does not do to others."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from tests.kafka.proxy import Api, Fault, Proxy, Side
from tests.kafka.shared import Shared

pytestmark = pytest.mark.kafka


@pytest.fixture
def admin(kafka: Shared) -> AdminClient:
    """Goes to the broker itself."""
    return AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})


@pytest.fixture
def topic(admin: AdminClient, namespace: str) -> str:
    """One whose leader is there: else what is written first is refused."""
    admin.create_topics([NewTopic(namespace, 1, 1)])[namespace].result(30)
    deadline_s = time.monotonic() + 30
    while True:
        try:
            assert end_of(admin, namespace) == 0
            return namespace
        except KafkaException:
            assert time.monotonic() < deadline_s, "the topic has no leader"


def end_of(admin: AdminClient, topic: str) -> int:
    place = TopicPartition(topic, 0)
    return int(admin.list_offsets({place: OffsetSpec.latest()})[place].result(30).offset)


class Writer:
    """A producer behind the proxy, and what it was told of its records."""

    def __init__(self, proxy: Proxy, topic: str, **settings: Any) -> None:
        names = {name.replace("_", "."): value for name, value in settings.items()}
        self._producer = Producer(
            {"bootstrap.servers": proxy.bootstrap, "log_level": 0, "retry.backoff.ms": 10, **names}
        )
        self._topic = topic
        self.told: list[KafkaError | None] = []

    def write(self) -> None:
        self._producer.produce(self._topic, b"x", on_delivery=lambda error, _: self.told.append(error))
        self._producer.poll(0)

    def flush(self, timeout_s: float = 30) -> bool:
        return self._producer.flush(timeout_s) == 0


def test_all_requests_of_a_client_go_through_the_proxy(proxy: Proxy, admin: AdminClient, topic: str) -> None:
    writer = Writer(proxy, topic)
    with proxy.rule(Side.REQUEST, Fault.DELAY) as seen:
        writer.write()
        assert writer.flush()
        seen.wait()
    assert writer.told[0] is None
    assert end_of(admin, topic) == 1
    proxy.cut()
    proxy.refusing = True
    writer.write()
    assert not writer.flush(0.3), "there is no other way to the broker"
    proxy.refusing = False
    assert writer.flush()
    assert end_of(admin, topic) == 2


@pytest.mark.parametrize(("idempotent", "records"), [("true", 1), ("false", 2)])
def test_a_response_is_lost_after_the_broker_has_written(
    proxy: Proxy, admin: AdminClient, topic: str, idempotent: str, records: int
) -> None:
    """The client tries again; whether the record is there twice is the client's affair, and it shows."""
    writer = Writer(proxy, topic, enable_idempotence=idempotent)
    with proxy.rule(Side.RESPONSE, Fault.CUT, api=Api.PRODUCE, times=1) as lost:
        writer.write()
        lost.wait()
        assert end_of(admin, topic) == 1
        assert writer.flush()
    assert writer.told[0] is None
    assert end_of(admin, topic) == records


def test_a_request_is_lost_before_the_broker_sees_it(proxy: Proxy, admin: AdminClient, topic: str) -> None:
    writer = Writer(proxy, topic, message_timeout_ms=1_000, socket_timeout_ms=1_000)
    with proxy.rule(Side.REQUEST, Fault.DROP, api=Api.PRODUCE) as lost:
        writer.write()
        lost.wait()
        assert writer.flush()
    assert writer.told[0] is not None
    assert end_of(admin, topic) == 0


def test_one_client_stalls_while_others_go_on(proxy: Proxy, admin: AdminClient, topic: str) -> None:
    slow, quick = (Writer(proxy, topic, client_id=name) for name in ("slow", "quick"))
    with proxy.rule(Side.REQUEST, Fault.HOLD, api=Api.PRODUCE, client="slow") as held:
        slow.write()
        held.wait()
        quick.write()
        assert quick.flush()
        assert end_of(admin, topic) == 1
        assert not slow.flush(0.1)
    assert slow.flush()
    assert end_of(admin, topic) == 2


def test_a_connection_of_one_client_is_cut(proxy: Proxy, topic: str) -> None:
    one, other = (Writer(proxy, topic, client_id=name) for name in ("one", "other"))
    for writer in (one, other):
        writer.write()
        assert writer.flush()
    accepted = proxy.accepted
    proxy.refusing = True
    proxy.cut("one")
    other.write()
    assert other.flush(), "its connection is the same as before"
    one.write()
    assert not one.flush(0.3)
    proxy.refusing = False
    assert one.flush()
    assert proxy.accepted > accepted


def test_responses_come_late(proxy: Proxy, topic: str) -> None:
    writer = Writer(proxy, topic)
    writer.write()
    assert writer.flush()
    with proxy.rule(Side.RESPONSE, Fault.DELAY, api=Api.PRODUCE, delay_s=0.2):
        begin_s = time.monotonic()
        writer.write()
        assert writer.flush()
        assert time.monotonic() - begin_s >= 0.2


def test_a_proxy_that_was_closed_is_gone(proxy: Proxy, topic: str) -> None:
    writer = Writer(proxy, topic)
    with proxy.rule(Side.RESPONSE, Fault.HOLD) as held:
        writer.write()
        held.wait()
        proxy.close()
    away = AdminClient({"bootstrap.servers": proxy.bootstrap, "log_level": 0})
    with pytest.raises(KafkaException):
        away.list_topics(timeout=0.3)
