"""Business events on a broker: exactly once under kills, fences, foreign transactions and refusals."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.errors import LogError
from orchestrator.log.kafka import admin, publisher
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.publisher import KafkaPublisher, KafkaPublishers
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.kafka.users_topics import UsersTopics
from orchestrator.log.port import Outcome
from orchestrator.protocol.ids import murmur2
from orchestrator.protocol.publications import Publication
from tests.conformance.log.kafka_harness import make_topic
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("publish")]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def settings(kafka: Shared, namespace: str) -> KafkaSettings:
    found = KafkaSettings(kafka.bootstrap, namespace)
    admin.create(found, partitions=2)
    return found


class Topics:
    """Users' topics, made for one test and read as a consumer reads them."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = AdminClient(settings.client(log_level=0))

    def make(self, name: str, partitions: int = 1, **config: str) -> str:
        """Returns the name, which belongs to no other test."""
        topic = f"users-{self._settings.namespace}-{name}"
        named = {key.replace("_", "."): value for key, value in config.items()}
        make_topic(self._admin, NewTopic(topic, partitions, 1, config=named))
        return topic

    def read(
        self, topic: str, partitions: int = 1
    ) -> list[tuple[int, bytes | None, bytes | None, dict[str, bytes]]]:
        """(partition, key, value, headers) of all committed records."""
        consumer = Consumer(
            self._settings.client(
                group_id="none", isolation_level="read_committed", enable_partition_eof=True, log_level=0
            )
        )
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        found, ended = [], 0
        while ended < partitions:
            record = consumer.poll(30)
            assert record is not None
            error = record.error()
            if error is None:
                headers = dict(record.headers() or [])
                found.append((record.partition(), record.key(), record.value(), headers))
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended += 1
        consumer.close()
        return found

    def values(self, topic: str) -> list[bytes | None]:
        return [value for _, _, value, _ in self.read(topic)]


@pytest.fixture
def topics(settings: KafkaSettings) -> Topics:
    return Topics(settings)


@pytest.fixture
def opened(settings: KafkaSettings) -> Iterator[Callable[..., tuple[KafkaPublisher, bytes | None]]]:
    """Opens publishers, which are closed at the end."""
    made: list[KafkaPublisher] = []

    def make(partition: int = 0, careful: set[int] | None = None) -> tuple[KafkaPublisher, bytes | None]:
        made.append(KafkaPublisher(Clients(settings, "test"), partition, careful=careful))
        return made[-1], made[-1].open()

    yield make
    for found in made:
        found.close()


Open = Callable[..., tuple[KafkaPublisher, bytes | None]]


def event(topic: str, value: bytes | None = b"v", key: bytes = b"k", **headers: bytes) -> Publication:
    return Publication(topic=topic, key=key, value=value, headers=headers)


def test_records_arrive_as_they_were_with_their_mark(opened: Open, topics: Topics) -> None:
    topic = topics.make("orders", 3)
    first, mark = opened()
    assert mark is None
    keys = [b"a", b"b", b"o-17", b""]
    records = [event(topic, b"1", key, a=b"1", b=b"") for key in keys]
    assert first.publish([*records, event(topic, None, b"a")], b"one").outcome is Outcome.DELIVERED
    assert opened()[1] == b"one"
    found = topics.read(topic, 3)
    assert sorted((key, value) for _, key, value, _ in found if value) == [
        (key, b"1") for key in sorted(keys)
    ]
    assert [(key, headers) for _, key, value, headers in found if value is None] == [(b"a", {})]
    assert all(headers == {"a": b"1", "b": b""} for _, _, value, headers in found if value)
    for partition, key, _, _ in found:
        assert partition == (murmur2(key or b"") & 0x7FFFFFFF) % 3  # as Java's clients place it


def test_marks_of_partitions_are_apart_and_found_among_thousands(opened: Open, topics: Topics) -> None:
    topic = topics.make("orders")
    zero, _ = opened(0)
    one, _ = opened(1)
    for number in range(150):
        assert zero.publish([event(topic, b"%d" % number)], b"%d" % number).outcome is Outcome.DELIVERED
    assert one.publish([], b"other").outcome is Outcome.DELIVERED
    assert (opened(0)[1], opened(1)[1]) == (b"149", b"other")
    assert topics.values(topic) == [b"%d" % number for number in range(150)]


def test_a_mark_is_found_behind_many_that_were_aborted(
    opened: Open, topics: Topics, settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "TAIL_OFFSETS", 3)
    first, _ = opened()
    first.publish([], b"one")
    producer = Producer(settings.client(transactional_id="foreign", log_level=0))
    producer.init_transactions(30)
    for _ in range(10):
        producer.begin_transaction()
        producer.produce(settings.topic("published"), b"aborted", b"mark", partition=0)
        producer.flush(30)
        producer.abort_transaction(30)
    assert opened()[1] == b"one"


def test_a_fenced_publisher_publishes_nothing(opened: Open, topics: Topics) -> None:
    topic = topics.make("orders")
    older, _ = opened()
    older.publish([event(topic, b"1")], b"one")
    newer, mark = opened()
    assert mark == b"one"
    assert older.publish([event(topic, b"late")], b"late").outcome is Outcome.UNKNOWN
    with pytest.raises(LogError, match="of no use any more"):
        older.publish([event(topic, b"later")], b"later")
    assert newer.publish([event(topic, b"2")], b"two").outcome is Outcome.DELIVERED
    assert opened()[1] == b"two"
    assert topics.values(topic) == [b"1", b"2"]


def test_a_missing_topic_is_refused_at_once_and_the_others_are_not_harmed(
    opened: Open, topics: Topics
) -> None:
    topic = topics.make("orders")
    first, _ = opened()
    published = first.publish([event(topic), event("users-missing", b"x"), event(topic)], b"one")
    assert (published.outcome, published.refused) == (Outcome.REFUSED, 1)
    assert "users-missing" in published.error
    second, mark = opened()
    assert mark is None
    assert second.publish([event(topic, b"ok")], b"two").outcome is Outcome.DELIVERED
    assert topics.values(topic) == [b"ok"]


def test_a_record_that_is_too_large_for_its_topic_is_found_among_others(opened: Open, topics: Topics) -> None:
    """A broker judges batches: the first refusal does not say which record it was, the second does."""
    small = topics.make("small", max_message_bytes="5000")
    careful: set[int] = set()
    records = [event(small, b"x" * 1_000) for _ in range(6)]
    first, _ = opened(careful=careful)
    published = first.publish([*records, event(small, b"y" * 6_000), *records], b"one")
    assert published.outcome is Outcome.UNKNOWN, published
    assert "one by one" in published.error
    second, mark = opened(careful=careful)
    assert mark is None
    published = second.publish([*records, event(small, b"y" * 6_000), *records], b"one")
    assert (published.outcome, published.refused) == (Outcome.REFUSED, 6), published
    third, _ = opened(careful=careful)
    assert third.publish([*records, *records], b"two").outcome is Outcome.DELIVERED
    assert len(topics.values(small)) == 12


def test_a_transaction_that_a_foreign_producer_left_open_on_a_users_topic_stops_nobody(
    opened: Open, topics: Topics, settings: KafkaSettings
) -> None:
    topic = topics.make("orders")
    foreign = Producer(settings.client(transactional_id="foreign", log_level=0))
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(topic, b"hangs")
    assert foreign.flush(30) == 0
    first, _ = opened()
    assert first.publish([event(topic, b"1")], b"one").outcome is Outcome.DELIVERED
    second, mark = opened()
    assert mark == b"one"
    assert second.publish([event(topic, b"2")], b"two").outcome is Outcome.DELIVERED
    foreign.abort_transaction(30)
    assert topics.values(topic) == [b"1", b"2"]


def test_a_transaction_left_open_on_the_marks_is_no_empty_partition(
    opened: Open, settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is behind it cannot be read: to publish from the beginning would be twice."""
    foreign = Producer(settings.client(transactional_id="foreign", log_level=0))
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(settings.topic("published"), b"hangs", b"x", partition=0)
    assert foreign.flush(30) == 0
    monkeypatch.setattr(publisher, "MARKS_S", 1.0)
    with pytest.raises(LogError, match="another producer has an open transaction on it"):
        opened()
    foreign.abort_transaction(30)
    assert opened()[1] is None


def test_what_is_known_of_topics(settings: KafkaSettings, topics: Topics) -> None:
    known = UsersTopics(settings)

    def refusal(topic: str, size: int = 100) -> str:
        known.refusal(topic, size)
        while topic in known._asked:
            known._thread.join(0.01)  # type: ignore[union-attr]
        return known.refusal(topic, size)

    small = topics.make("small", max_message_bytes="5000")
    assert known.refusal("users-missing", 1) == ""  # not known yet, and nobody waits
    assert "'users-missing' does not exist" in refusal("users-missing")
    assert refusal(small) == ""
    assert "takes records of at most 5000 bytes, this one has 6000" in refusal(small, 6_000)
    assert "one of the engine's own" in refusal(settings.topic("commands"))
    known.close()


def test_no_answer_is_no_refusal() -> None:
    publishers = KafkaPublishers(Clients(KafkaSettings("127.0.0.1:1"), "test"))
    assert publishers.refusal_of_topic("t", 1) == ""
    publishers.close()


# --- processes that are killed and paused ---


@pytest.fixture
def spawn(settings: KafkaSettings) -> Iterator[Callable[..., Child]]:
    """Starts processes, none of which outlives the test."""
    children: list[Child] = []

    def start(topic: str, until: int = 10**9) -> Child:
        children.append(Child(settings, topic, until))
        return children[-1]

    yield start
    for child in children:
        if child.process.poll() is None:
            child.send(signal.SIGKILL)
            child.end()


class Child:
    """A process that publishes the numbers from the mark on; see ``tests.kafka.publishing``."""

    def __init__(self, settings: KafkaSettings, topic: str, until: int) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.kafka.publishing",
                settings.bootstrap,
                settings.namespace,
                topic,
                str(until),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )

    def wait_for(self, line: bytes) -> None:
        """Until the process says so."""
        assert self.process.stdout is not None
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], 60)
            assert ready, "the process says nothing"
            said = self.process.stdout.readline()
            assert said, f"the process ended before it said {line!r}"
            if said.startswith(line):
                return

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def test_kills_at_random_times_publish_everything_once(spawn: Callable[..., Child], topics: Topics) -> None:
    topic = topics.make("numbers")
    random = Random(7)
    for _ in range(8):
        child = spawn(topic)
        child.wait_for(b"open")
        child.wait_for(b"published")
        select.select([], [], [], random.uniform(0.0, 0.15))
        child.send(signal.SIGKILL)
        child.end()
    child = spawn(topic, len(topics.values(topic)) + 50)
    assert child.end() == 0
    found = [int(value or b"-1") for value in topics.values(topic)]
    assert found == list(range(len(found)))
    assert len(found) > 100


def test_a_process_that_was_paused_is_fenced_and_goes_on_behind_its_successor(
    spawn: Callable[..., Child], topics: Topics
) -> None:
    topic = topics.make("numbers")
    zombie = spawn(topic)
    zombie.wait_for(b"published")
    zombie.send(signal.SIGSTOP)
    successor = spawn(topic)
    successor.wait_for(b"published")
    zombie.send(signal.SIGCONT)
    zombie.wait_for(b"unknown")
    zombie.wait_for(b"published")  # it fenced its successor, and reads its mark
    for child in (zombie, successor):
        child.send(signal.SIGKILL)
        child.end()
    found = [int(value or b"-1") for value in topics.values(topic)]
    assert found == list(range(len(found)))
