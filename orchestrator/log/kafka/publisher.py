"""Users' topics on Kafka: one transactional producer per partition of ``history``, one transaction a publish.

The transaction holds the users' records and the mark. Opening a publisher fences the older ones of its
partition: ``init_transactions`` raises the epoch of the transactional id, and waits until what they left
open is committed or aborted. So the mark that is read after it says the truth, and an outcome that is not
known needs no repetition: the next publisher reads it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from orchestrator.errors import LogError
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.kafka.users_topics import UsersTopics
from orchestrator.log.port import Outcome, Published
from orchestrator.log.topics import PUBLISH_MARK_KEY, PUBLISHED
from orchestrator.protocol.publications import Publication

ANSWER_S = 10.0
"""For each thing that is asked of the cluster. What takes longer is unknown: another publisher will see."""

TRANSACTION_MS = 15_000
"""A transaction whose owner died and has no successor is aborted by the cluster after so long; until then
readers of the topics in it, who read committed records, wait. Longer than what is asked in it may take."""

RETRY_MS = (1, 2)
"""First and longest delay of librdkafka before it asks again. A coordinator of transactions that is not done
with the last one says so, to each commit and each beginning: by default that costs 104 ms [measured]."""

ABORT_S = 2.0
"""A refused transaction is aborted, for the sake of readers; in the end the next publisher does it."""

TAIL_OFFSETS = 200
"""Marks are looked for in the last so many offsets first. Each transaction takes two of them."""

FETCH_WAIT_MS = 10
"""A fetch at the end waits so long for more: the end is what is looked for."""

_SILENT = logging.Logger("librdkafka")
_SILENT.addHandler(logging.NullHandler())

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


class KafkaPublishers:
    """Makes the publishers of one process, and knows what users' topics take. For any thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect to nothing yet."""
        self._settings = settings
        self._topics = UsersTopics(settings)
        self._careful: set[int] = set()

    def publisher(self, partition: int) -> KafkaPublisher:
        """A publisher, not opened yet."""
        return KafkaPublisher(self._settings, partition, careful=self._careful)

    def refusal_of_topic(self, topic: str, size_bytes: int) -> str:
        """Why a topic would refuse a record of that size, as far as is known now; never waits."""
        return self._topics.refusal(topic, size_bytes)

    def close(self) -> None:
        """Look at topics no more."""
        self._topics.close()


class KafkaPublisher:
    """Implements :class:`orchestrator.log.port.Publisher`."""

    def __init__(self, settings: KafkaSettings, partition: int, *, careful: set[int] | None = None) -> None:
        """``careful``: partitions whose records are sent one by one, for some topic refused a whole batch by
        its size; shared by all publishers of a process.
        """
        self._settings, self._partition = settings, partition
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
            self._producer = Producer(self._configuration())
            self._producer.init_transactions(ANSWER_S)
            mark = self._read_mark()
        except _TROUBLE as error:
            raise LogError(f"business events of partition {self._partition}: {_words(error)}") from error
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

    def _configuration(self) -> dict[str, Any]:
        single = {"batch_num_messages": 1} if self._partition in self._careful else {}
        return self._settings.client(
            transactional_id=f"{self._settings.namespace}-publish-{self._partition}",
            transaction_timeout_ms=TRANSACTION_MS,
            message_timeout_ms=int(ANSWER_S * 1_000),
            linger_ms=0,
            retry_backoff_ms=RETRY_MS[0],
            retry_backoff_max_ms=RETRY_MS[1],
            partitioner="murmur2_random",  # as Java's clients place a key
            logger=_SILENT,  # what matters is raised or returned
            **single,
        )

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
                    record.key,
                    headers=list(record.headers.items()),
                    on_delivery=on_delivery(place),
                )
            except KafkaException as error:  # larger than the client takes
                refused[place] = error.args[0]
                break
        producer.produce(
            self._settings.topic(PUBLISHED),
            mark,
            PUBLISH_MARK_KEY,
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
        place = TopicPartition(self._settings.topic(PUBLISHED), self._partition)
        consumer = Consumer(
            self._settings.client(
                group_id=self._settings.topic("coordinators"),  # the group is not joined, nor committed to
                isolation_level="read_committed",
                enable_auto_commit=False,
                enable_partition_eof=True,
                auto_offset_reset="error",
                fetch_wait_max_ms=FETCH_WAIT_MS,
                logger=_SILENT,
            )
        )
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
        admin = AdminClient(self._settings.client(logger=_SILENT))
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
        deadline_s = time.monotonic() + ANSWER_S
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
            f"{place.topic}-{place.partition} cannot be read up to its end {end} within {ANSWER_S:g} s: "
            f"another producer has an open transaction on it; nobody but coordinators may write to it"
        )


def _words(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, SystemError) and error.__cause__ is not None else error
    found = cause.args[0] if cause.args else cause
    return f"{found.str()} ({found.name()})" if isinstance(found, KafkaError) else str(found)
