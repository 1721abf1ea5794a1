"""Users' topics on Kafka: one transactional producer per partition of ``history``, one transaction a publish.

The transaction holds the users' records and the mark. Opening a publisher fences the older ones of its
partition: ``init_transactions`` raises the epoch of the transactional id, and waits until what they left
open is committed or aborted. So the mark that is read after it says the truth, and an outcome that is not
known needs no repetition: the next publisher reads it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec

from orchestrator.errors import LogError
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.users_topics import UsersTopics
from orchestrator.log.port import Outcome, Published
from orchestrator.log.topics import PUBLISH_MARK_KEY, PUBLISHED
from orchestrator.protocol.publications import Publication

ANSWER_S = 10.0
"""For each thing that is asked of the cluster. What takes longer is unknown: another publisher will see."""

MARKS_S = 10.0
"""For reading the last marks, a few kilobytes: what takes longer waits for somebody's transaction."""

ABORT_S = 2.0
"""A refused transaction is aborted, for the sake of readers; in the end the next publisher does it."""

TAIL_OFFSETS = 200
"""Marks are looked for in the last so many offsets first. Each transaction takes two of them."""

_TROUBLE = (KafkaException, BufferError, SystemError)
"""What a producer raises. To be fenced is a fatal error, which the client raises in the middle of a delivery
report: so it comes as the cause of a ``SystemError``."""

_REFUSALS = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    }
)
"""What is wrong with one record or its topic, for good as far as a producer can tell."""

_TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE

_NO_RIGHT = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


class KafkaPublishers:
    """Makes the publishers of one process, and knows what users' topics take. For any thread."""

    def __init__(self, clients: Clients) -> None:
        """Connect to nothing yet."""
        self._clients = clients
        self._topics = UsersTopics(clients.settings)
        self._careful: set[int] = set()

    def publisher(self, partition: int) -> KafkaPublisher:
        """A publisher, not opened yet."""
        return KafkaPublisher(self._clients, partition, careful=self._careful)

    def refusal_of_topic(self, topic: str, size_bytes: int) -> str:
        """Why a topic would refuse a record of that size, as far as is known now; never waits."""
        return self._topics.refusal(topic, size_bytes)

    def close(self) -> None:
        """Look at topics no more."""
        self._topics.close()


class KafkaPublisher:
    """Implements :class:`orchestrator.log.port.Publisher`."""

    def __init__(self, clients: Clients, partition: int, *, careful: set[int] | None = None) -> None:
        """``careful``: partitions whose records are sent one by one, for some topic refused a whole batch by
        its size; shared by all publishers of a process.
        """
        self._clients, self._partition = clients, partition
        self._marks = clients.settings.topic(PUBLISHED)
        self._careful = careful if careful is not None else set()
        self._producer: Producer | None = None
        self._usable = False
        self._seen: set[str] = set()

    def open(self) -> bytes | None:
        """Fence older publishers of this partition, and return the mark.

        Raises:
            LogError: there is no answer in time, or a right is missing.
        """
        try:
            self._producer = self._clients.publisher(
                self._partition, single=self._partition in self._careful, timeout_ms=int(ANSWER_S * 1_000)
            )
            self._producer.init_transactions(ANSWER_S)
            mark = self._read_mark()
        except _TROUBLE as error:
            remedy = ""
            if isinstance(found := _cause(error), KafkaError) and found.code() == _NO_RIGHT:
                ids = f"{self._clients.settings.publishers}…"
                remedy = f"; give this user WRITE and DESCRIBE on the transactional ids {ids}"
            raise LogError(
                f"business events of partition {self._partition}: {_words(error)}{remedy}"
            ) from error
        self._usable = True
        return mark

    def publish(self, records: Sequence[Publication], mark: bytes) -> Published:
        """Publish all records and the mark in one transaction."""
        if self._producer is None or not self._usable:
            raise LogError("the publisher is not open, or of no use any more")
        self._usable = False
        try:
            for place, record in enumerate(records):
                if missing := self._missing(record.topic):
                    return Published(Outcome.REFUSED, missing, refused=place)
            published = self._transact(records, mark)
        except _TROUBLE as error:
            return Published(Outcome.UNKNOWN, _words(error))
        self._usable = published.outcome is Outcome.DELIVERED
        return published

    def close(self) -> None:
        """Let go of the producer; what it left open is aborted when the next one is opened."""
        self._usable = False
        if self._producer is not None:
            self._producer.purge(blocking=False)
            self._producer = None

    def _transact(self, records: Sequence[Publication], mark: bytes) -> Published:
        producer = self._producer
        assert producer is not None
        refused: dict[int, KafkaError] = {}

        def on_delivery(place: int) -> Any:
            return lambda error, _: refused.update({place: error}) if error is not None else None

        producer.begin_transaction()
        for place, record in enumerate(records):
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    key=record.key,
                    headers=list(record.headers.items()),
                    on_delivery=on_delivery(place),
                )
            except KafkaException as error:  # larger than the client takes
                refused[place] = error.args[0]
                break
        producer.produce(
            self._marks,
            mark,
            key=PUBLISH_MARK_KEY,
            partition=self._partition,
            on_delivery=on_delivery(len(records)),
        )
        left = producer.flush(ANSWER_S)
        if refused:
            return self._refused(records, refused)
        if left:
            return Published(Outcome.UNKNOWN, f"{left} records were not acknowledged within {ANSWER_S:g} s")
        producer.commit_transaction(ANSWER_S)
        return Published(Outcome.DELIVERED)

    def _refused(self, records: Sequence[Publication], errors: Mapping[int, KafkaError]) -> Published:
        """Which record is to blame: others fail with it, for its transaction cannot be committed."""
        assert self._producer is not None
        with suppress(*_TROUBLE):
            self._producer.abort_transaction(ABORT_S)
        for place, error in sorted(errors.items()):
            if place == len(records):
                break
            words = f"topic {records[place].topic!r}: {error.str()} ({error.name()})"
            if error.code() == _TOO_LARGE and self._partition not in self._careful and len(records) > 1:
                self._careful.add(self._partition)
                return Published(Outcome.UNKNOWN, f"{words}; records are sent one by one from now on")
            if error.code() in _REFUSALS or error.code() == _TOO_LARGE:
                return Published(Outcome.REFUSED, words, refused=place)
        first = min(errors.items())[1]
        return Published(Outcome.UNKNOWN, f"{first.str()} ({first.name()})")

    def _missing(self, topic: str) -> str:
        """Why a topic is not there. Asked once: a record for a missing one holds up all others for long."""
        if topic in self._seen:
            return ""
        assert self._producer is not None
        found = self._producer.list_topics(topic, timeout=ANSWER_S).topics[topic]
        if found.error is not None and found.error.code() in _REFUSALS:
            return f"topic {topic!r}: {found.error.str()} ({found.error.name()})"
        self._seen.add(topic)
        return ""

    # --- the mark ---

    def _read_mark(self) -> bytes | None:
        place = TopicPartition(self._marks, self._partition)
        consumer = self._clients.mark_reader()
        try:
            low, _ = consumer.get_watermark_offsets(place, timeout=ANSWER_S)
            end = self._end(place)
            span = TAIL_OFFSETS
            while low < end:
                start = max(low, end - span)
                mark = self._last(consumer, place, start, end)
                if mark is not None or start == low:
                    return mark
                span *= 10
            return None
        finally:
            consumer.close()

    def _end(self, place: TopicPartition) -> int:
        """Where the partition really ends: a transaction that somebody left open must not hide a mark."""
        admin = self._clients.admin()  # kept until the answer is here: its end ends its requests
        asked = admin.list_offsets(
            {place: OffsetSpec.latest()},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=ANSWER_S,
        )
        end: int = asked[place].result(ANSWER_S + 1).offset
        return end

    def _last(self, consumer: Consumer, place: TopicPartition, start: int, end: int) -> bytes | None:
        """The last committed mark from ``start`` on; None if there is none."""
        consumer.assign([TopicPartition(place.topic, place.partition, start)])
        found: bytes | None = None
        deadline_s = time.monotonic() + MARKS_S
        while time.monotonic() < deadline_s:
            record = consumer.poll(0.1)
            if record is None:
                continue
            error = record.error()
            if error is None:
                found = record.value() if record.key() == PUBLISH_MARK_KEY else found
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            elif (record.offset() or 0) >= end:
                return found
        raise LogError(
            f"{place.topic}-{place.partition} cannot be read up to its end {end} within {MARKS_S:g} s: "
            f"another producer has an open transaction on it; nobody but coordinators may write to it"
        )


def _cause(error: Exception) -> object:
    cause = error.__cause__ if isinstance(error, SystemError) and error.__cause__ is not None else error
    return cause.args[0] if cause.args else cause


def _words(error: Exception) -> str:
    found = _cause(error)
    return f"{found.str()} ({found.name()})" if isinstance(found, KafkaError) else str(found)
