"""Following partitions: what is assigned by hand comes as it is written, in the order of its offsets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from orchestrator.errors import LogError, Unavailable
from orchestrator.log.kafka.health import Health
from orchestrator.log.kafka.places import Places
from orchestrator.log.port import Record

POLL_RECORDS = 2_000
"""Brought by one poll: bounds a step, and so the wait of whatever is decided by time."""

_NO_HEADERS: Mapping[str, bytes] = {}

_NO_TIME = 0
"""The client's type of a time that the record does not have."""

OUT_OF_RANGE = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
)
"""A position is outside of its partition."""


class Spot(NamedTuple):
    """A partition, by the port's name of its topic."""

    topic: str
    partition: int


def record_of(spot: Spot, message: Message) -> Record:
    """A record as the port has it. A foreign producer's missing key is an empty one."""
    kind, time_ms = message.timestamp()
    return Record(
        spot.topic,
        spot.partition,
        message.offset() or 0,
        0 if kind == _NO_TIME else time_ms,
        message.key() or b"",
        message.value(),
        _headers(message),
    )


def _headers(message: Message) -> Mapping[str, bytes]:
    found: Any = message.headers()
    if not found:
        return _NO_HEADERS
    return {name: value if isinstance(value, bytes) else b"" for name, value in found}


class Positions:
    """Which partitions a consumer is assigned, and the offset that comes next in each.

    The consumer never goes elsewhere by itself. An offset below the start of a partition means its start,
    for everything below was deleted on purpose. One beyond the end means that the log lost records.
    """

    def __init__(self, consumer: Consumer, places: Places, health: Health) -> None:
        self._consumer = consumer
        self._places = places
        self._health = health
        self._topics: set[str] = set()
        self._next: dict[Spot, int] = {}
        self._spots: dict[tuple[str | None, int | None], Spot] = {}

    def seek(self, spot: Spot, offset: int) -> None:
        """Go on at an offset.

        Raises:
            LogError: there is no such topic or partition.
            Unavailable: the broker does not answer.
        """
        place = self._places.at(*spot, offset)
        if spot.topic not in self._topics:
            self._places.introduce(self._consumer, spot.topic)
            self._topics.add(spot.topic)
        if spot in self._next:
            self._consumer.incremental_unassign([place])
        self._consumer.incremental_assign([place])
        self._next[spot] = offset
        self._spots[place.topic, place.partition] = spot

    def drop(self, spot: Spot) -> None:
        """Bring no more records of a partition. What waits of it in the client's queue is gone."""
        if self._next.pop(spot, None) is not None:
            place = TopicPartition(self._places.full(spot.topic), spot.partition)
            self._consumer.incremental_unassign([place])
            del self._spots[place.topic, place.partition]

    def next_offset(self, spot: Spot) -> int | None:
        """The offset after the last record that was brought; None if the partition is not assigned."""
        return self._next.get(spot)

    def spots(self) -> list[Spot]:
        """What is assigned."""
        return list(self._next)

    def take(self, message: Message) -> Record | None:
        """The record of a message; None if it is a report, or of a partition that was dropped meanwhile.

        Raises:
            LogError: the log lost records that were there.
        """
        spot = self._spots.get((message.topic(), message.partition()))
        error = message.error()
        if error is not None:
            self._on_error(spot, error, message.offset())
            return None
        offset = message.offset()
        if spot is None or offset is None or offset < self._next[spot]:
            return None
        self._next[spot] = offset + 1
        return record_of(spot, message)

    def _on_error(self, spot: Spot | None, error: KafkaError, offset: int | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if spot is not None and offset is not None:
                self._next[spot] = max(self._next[spot], offset)
        elif spot is not None and error.code() in OUT_OF_RANGE:
            self._recover(spot)
        else:
            self._health.complain(error, f"{spot.topic}-{spot.partition}" if spot else "")

    def _recover(self, spot: Spot) -> None:
        offset = self._next[spot]
        try:
            low, high = self._places.bounds(*spot)
        except Unavailable:
            self.seek(spot, offset)  # it will be reported again
            return
        if offset > high:
            raise LogError(
                f"{self._places.full(spot.topic)}-{spot.partition} was to be read from offset {offset} on, "
                f"and ends at {high}: records are lost, or the topic was made anew. Restore the topic, or "
                "empty the data folders of all coordinators and views"
            )
        self.seek(spot, max(offset, low))


class Follower:
    """What :meth:`Log.seek` asks for, by one consumer, so that one wait serves all partitions."""

    def __init__(self, consumer: Consumer, places: Places, health: Health) -> None:
        self.consumer = consumer
        self.positions = Positions(consumer, places, health)
        self._health = health

    def fetch(self, timeout_s: float) -> list[Record]:
        """The next records; waits for the first of them, at most ``timeout_s``."""
        first = self.consumer.poll(timeout_s)
        if first is None:
            return []
        # `consume` would wait until it has as many as it may bring, or its time is over.
        messages = [first, *self.consumer.consume(POLL_RECORDS, 0)]
        take = self.positions.take
        records = [record for message in messages if (record := take(message)) is not None]
        if records:
            self._health.answered()
        return records
