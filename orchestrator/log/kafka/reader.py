"""Bounded reads, as a restore makes them: slice after slice, of many partitions in turn.

A partition that is read stays assigned while its slices follow each other, so that the next one is fetched
in advance. Records of other partitions that come meanwhile wait for their own reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from confluent_kafka import Consumer

from orchestrator.errors import Unavailable
from orchestrator.log.kafka.fetch import Positions, Spot
from orchestrator.log.kafka.health import Health
from orchestrator.log.kafka.places import ANSWER_S, Places
from orchestrator.log.port import Record

IDLE_S = 5.0
"""A read that is not continued for so long is over, and its partition is not fetched any more."""

SLICE_S = 0.05
"""Between two looks at the clock, while records are on their way."""


class _Cursor:
    """A read that may be continued at ``offset``."""

    __slots__ = ("offset", "records", "used_s")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.records: deque[Record] = deque()
        self.used_s = monotonic()


class Reader:
    """Reads slices. The consumer is made by the first read."""

    def __init__(self, make_consumer: Callable[[], Consumer], places: Places, health: Health) -> None:
        self._make_consumer = make_consumer
        self._places = places
        self._health = health
        self.consumer: Consumer | None = None
        self._cursors: dict[Spot, _Cursor] = {}

    def read(self, spot: Spot, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` durable records from ``offset`` on; empty only at the end.

        Raises:
            LogError: there is no such topic or partition, or the log lost records.
            Unavailable: the broker does not answer.
        """
        deadline_s = monotonic() + ANSWER_S
        cursor = self._cursors.get(spot)
        if cursor is None or cursor.offset != offset:
            low, end = self._places.bounds(*spot)
            if max(low, offset) >= end:
                self._drop(spot)
                return []
            cursor = self._open(spot, max(low, offset))
        end = -1
        while len(cursor.records) < limit:
            if self._gather(limit, 0.0):
                continue
            if cursor.records:
                break
            if end < 0:
                _, end = self._places.bounds(*spot)
            if (self._positions.next_offset(spot) or 0) >= end:
                self._drop(spot)
                return []
            if not self._gather(limit, SLICE_S) and monotonic() > deadline_s:
                raise Unavailable(
                    f"{spot.topic}-{spot.partition} ends at {end}, and the records from {cursor.offset} "
                    f"on do not come within {ANSWER_S} s"
                )
        records = [cursor.records.popleft() for _ in range(min(limit, len(cursor.records)))]
        cursor.offset = records[-1].offset + 1
        cursor.used_s = monotonic()
        return records

    def rest(self) -> None:
        """Let go of reads that are not continued. To be called now and then."""
        if self._cursors:
            now_s = monotonic()
            for spot in [s for s, cursor in self._cursors.items() if now_s - cursor.used_s > IDLE_S]:
                self._drop(spot)

    def _open(self, spot: Spot, offset: int) -> _Cursor:
        if self.consumer is None:
            self.consumer = self._make_consumer()
            self._positions = Positions(self.consumer, self._places, self._health)
        self._positions.seek(spot, offset)
        self._cursors[spot] = _Cursor(offset)
        return self._cursors[spot]

    def _drop(self, spot: Spot) -> None:
        if self._cursors.pop(spot, None) is not None:
            self._positions.drop(spot)

    def _gather(self, limit: int, timeout_s: float) -> bool:
        """Bring what has come to the cursors that it belongs to; whether there was anything."""
        assert self.consumer is not None
        first = self.consumer.poll(timeout_s)
        if first is None:
            return False
        for message in [first, *self.consumer.consume(limit, 0)]:
            record = self._positions.take(message)
            if record is not None:
                self._cursors[Spot(record.topic, record.partition)].records.append(record)
        self._health.answered()
        return True
