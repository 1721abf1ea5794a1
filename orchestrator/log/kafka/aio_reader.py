"""Reads partitions of Kafka from their ends, for all streams of one process and one event loop.

Partitions are assigned by hand: there is no group, so nothing rebalances. Positions are kept here, in the
feeds, so the consumer (see ``intake``) may be thrown away at any time.

A position is never reset silently. If the records behind it are gone, the streams that would have brought
them end with an error, and whoever reads them opens others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, Message

from orchestrator.errors import LogError, Unavailable
from orchestrator.log.kafka.fetch import OUT_OF_RANGE, Spot, record_of
from orchestrator.log.kafka.health import Health
from orchestrator.log.kafka.intake import Intake, Place
from orchestrator.log.kafka.undertaker import CLOSE_S
from orchestrator.log.port import Record
from orchestrator.log.typed import Channel, Feed, Stream
from orchestrator.log.waiting import WaitingStream

_logger = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN_S = 1.0
"""A consumer that failed is replaced after so long."""


class _Reading:
    """A partition that is read: where from, and for whom."""

    def __init__(self, place: Place, spot: Spot, feed: Feed[Any]) -> None:
        self.place = place
        self.spot = spot
        self.feed = feed
        self.streams: list[WaitingStream[Any]] = []
        self.opening = 0
        """Who will have a stream as soon as it has begun."""
        self.begun = asyncio.Event()
        """Whether the feed has its position."""


class Reader:
    """All partitions that one process reads. Use it from one event loop.

    Args:
        connect: makes a consumer with nothing assigned; called in a thread.
        topic: the full name of a topic.
        health: is told what the brokers do.
        set_aside: is told of records that cannot be decoded, and why.
    """

    def __init__(
        self,
        connect: Callable[[], Consumer],
        topic: Callable[[str], str],
        health: Health,
        set_aside: Callable[[Record, str], None],
    ) -> None:
        self.lost_records = 0
        """How many records were gone before they could be read."""
        self._connect = connect
        self._topic = topic
        self._health = health
        self._set_aside = set_aside
        self._reading: dict[Place, _Reading] = {}
        self._beside: dict[Place, _Reading] = {}
        self._intake: Intake[_Reading] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._failing = False
        self._closed = False

    def beside(self, channel: Channel[Any]) -> None:
        """Read the one partition of a topic from its beginning as well, whenever anything is read.

        Nobody waits for what it brings: the channel's ``decode`` takes it.
        """
        feed = Feed(channel, 0, 0)
        Stream(feed, "")
        place = Place(self._topic(channel.topic), 0)
        self._beside[place] = _Reading(place, Spot(channel.topic, 0), feed)

    def used(self, topic: str) -> dict[int, int]:
        """How many streams read each partition of a topic."""
        return {
            reading.spot.partition: len(reading.streams) + reading.opening
            for reading in self._reading.values()
            if reading.spot.topic == topic
        }

    async def open(self, channel: Channel[T], partition: int, name: str) -> WaitingStream[T]:
        """Read a partition from its end as of now. Takes as long as the brokers take to answer.

        Raises:
            Unavailable: the log was closed.
        """
        self._check_open()
        place = Place(self._topic(channel.topic), partition)
        if place not in self._reading:
            feed = Feed(channel, partition, 0, self._set_aside)
            self._reading[place] = _Reading(place, Spot(channel.topic, partition), feed)
            if self._intake is None:
                self._connect_intake()
            else:
                self._read(self._reading[place], again=True)
        reading = self._reading[place]
        reading.opening += 1
        try:
            await reading.begun.wait()
            self._check_open()
            stream = WaitingStream(reading.feed, name, partial(self._release, reading))
            reading.streams.append(stream)
            return stream
        finally:
            reading.opening -= 1
            self._release(reading)

    async def close(self) -> None:
        """Read no more; all streams end, and who waits for one to open is told."""
        self._closed = True
        for reading in self._reading.values():
            reading.begun.set()
            for stream in reading.streams:
                stream.end()
        if self._again is not None:
            self._again.cancel()
        if self._intake is not None:
            await self._intake.close(CLOSE_S)

    def _release(self, reading: _Reading, closed: WaitingStream[Any] | None = None) -> None:
        """Read a partition no more if nobody wants it."""
        if closed in reading.streams:
            reading.streams.remove(closed)
        if reading.streams or reading.opening or self._reading.get(reading.place) is not reading:
            return
        del self._reading[reading.place]
        if self._intake is not None:
            self._intake.drop(reading.place)

    # --- what the intake tells ---

    def began(self, order: _Reading, offset: int) -> None:
        """A partition is read from here on; if that is not where its feed stood, it missed something."""
        if order.begun.is_set() and offset != order.feed.position:
            self._jump(order, offset)
        order.feed.position = offset
        order.begun.set()

    def took(self, messages: list[Message]) -> None:
        """Hand out records; those that are read beside come first, for they tell how to read the others."""
        found: dict[_Reading, list[Record]] = {reading: [] for reading in self._beside.values()}
        places = self._places
        for message in messages:
            reading, error = places.get((message.topic(), message.partition())), message.error()
            if error is not None:
                self._on_error(reading, error)
            elif reading is not None:
                found.setdefault(reading, []).append(record_of(reading.spot, message))
        for reading, records in found.items():
            self._take(reading, records)
        if any(found.values()):
            self._failing = False
            self._health.answered()

    def ended(self, error: Exception) -> None:
        """Take another consumer."""
        self._intake = None
        level = logging.DEBUG if self._failing else logging.ERROR  # one error per series of failures
        _logger.log(level, "reading from Kafka failed; it begins again where it was", exc_info=error)
        self._failing = True
        self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._connect_intake)

    @property
    def _places(self) -> Mapping[Any, _Reading]:
        return {**self._beside, **self._reading}

    def _connect_intake(self) -> None:
        if self._intake is not None or self._closed or not self._reading:
            return
        self._intake = Intake(self._connect, self)
        for reading in self._places.values():
            self._read(reading, again=not reading.begun.is_set())

    def _read(self, reading: _Reading, *, again: bool) -> None:
        """Go on where the feed stands; or ``again``, as at first, from an end or a beginning."""
        if self._intake is None:
            return
        first = OFFSET_BEGINNING if reading.place in self._beside else OFFSET_END
        self._intake.read(reading.place, first if again else reading.feed.position, reading)

    def _take(self, reading: _Reading, records: list[Record]) -> None:
        while records:
            try:
                reading.feed.take(records)
                return
            except Exception:  # of a decoder: the feed stands behind that record
                _logger.exception("a record was skipped: it could not be handed out")
                records = [record for record in records if record.offset >= reading.feed.position]

    def _on_error(self, reading: _Reading | None, error: KafkaError) -> None:
        if reading is None:
            # Of a partition that was dropped, or of the group, which is named because the client insists on
            # it, and of which nobody here needs to be a member.
            _logger.debug("ignored: %s", error)
        elif error.code() not in OUT_OF_RANGE:
            self._health.complain(error, f"{reading.place.topic}-{reading.place.partition}")
        else:
            self._read(reading, again=True)

    def _jump(self, reading: _Reading, offset: int) -> None:
        """A position is outside of its partition: its streams end, and reading goes on where records are."""
        feed, topic = reading.feed, reading.place.topic
        lost = f"records are gone, and it goes on at {offset}"
        if feed.position > offset:
            lost = f"it goes on at {offset}: it lost records, or was made anew"
        self.lost_records += max(0, offset - feed.position)
        error = LogError(f"{topic}-{feed.partition} cannot be read at offset {feed.position}: {lost}")
        _logger.warning("%s; its readers begin anew", error)
        for stream in reading.streams:
            stream.end(error)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this side of the log is closed")
