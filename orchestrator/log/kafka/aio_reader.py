"""Reads partitions of Kafka from their ends, for all streams of one process and one event loop.

One consumer with partitions assigned by hand: there is no group, so nothing rebalances. Positions are kept
here, in the feeds, so a consumer may be thrown away at any time, and is: aiokafka neither tells that it does
not get on, nor asks the bootstrap servers twice. Whether it gets on is looked at every few seconds.

A position is never reset silently. If the records behind it are gone, the streams that would have brought
them end with an error, and whoever reads them opens others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from orchestrator.errors import LogError, OrchestratorError, Unavailable
from orchestrator.log.kafka.aio_clients import stop_consumer
from orchestrator.log.kafka.aio_sender import RETRY_FIRST_S, delays
from orchestrator.log.kafka.outage import Outage
from orchestrator.log.port import Record
from orchestrator.log.typed import Channel, Feed
from orchestrator.log.waiting import WaitingStream

_logger = logging.getLogger(__name__)

T = TypeVar("T")

POLL_MS = 1_000
"""How long one poll waits; a record ends it at once."""

CHECK_S = 5.0
"""Between looks at whether the consumer gets on."""

HEALTHY_S = 30.0
"""A consumer that failed after so long is replaced at once; one that never worked, without haste."""

CHECK_TIMEOUT_S = 5.0
"""A broker that does not tell the end of a partition for so long is away."""


class _Reading(NamedTuple):
    """A partition that is read: of which topic (the short name), and by whom."""

    topic: str
    feed: Feed[Any]
    streams: list[WaitingStream[Any]]


class Reader:
    """All partitions that one process reads. Use it from one event loop.

    Args:
        connect: a started consumer, with nothing assigned.
        topic: the full name of a topic.
        outage: is told whether the brokers answer.
        set_aside: is told of records that cannot be decoded, and why.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[AIOKafkaConsumer]],
        topic: Callable[[str], str],
        outage: Outage,
        set_aside: Callable[[Record, str], None],
    ) -> None:
        self.lost_records = 0
        """How many records were gone before they could be read."""
        self._connect = connect
        self._topic = topic
        self._outage = outage
        self._set_aside = set_aside
        self._beside: dict[TopicPartition, _Reading] = {}
        self._reading: dict[TopicPartition, _Reading] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._changed = asyncio.Event()
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def beside(self, channel: Channel[Any]) -> None:
        """Read the one partition of a topic from its beginning as well, whenever anything is read.

        Nobody waits for what it brings: the channel's ``decode`` takes it.
        """
        feed = Feed(channel, 0, 0)
        stream = WaitingStream(feed, "", lambda ended: None)
        self._beside[TopicPartition(self._topic(channel.topic), 0)] = _Reading(channel.topic, feed, [stream])

    def used(self, topic: str) -> dict[int, int]:
        """How many streams read each partition of a topic."""
        readings = [reading for reading in self._reading.values() if reading.topic == topic]
        return {reading.feed.partition: reading.feed.readers for reading in readings}

    async def open(self, channel: Channel[T], partition: int, name: str) -> WaitingStream[T]:
        """Read a partition from its end as of now. Takes as long as the brokers take to answer."""
        place = TopicPartition(self._topic(channel.topic), partition)
        if place not in self._reading:
            end = await self._end(place)
            if self._closed:
                raise Unavailable("this side of the log is closed")
            if place not in self._reading:  # another one may have opened it meanwhile
                feed = Feed(channel, partition, end, self._set_aside)
                self._reading[place] = _Reading(channel.topic, feed, [])
                self._assign()
        reading = self._reading[place]
        stream = WaitingStream(reading.feed, name, partial(self._release, place))
        reading.streams.append(stream)
        return stream

    async def close(self) -> None:
        """Read no more; all streams end, and who waits for one to open is told."""
        self._closed = True
        self._connected.set()
        for reading in self._reading.values():
            for stream in reading.streams:
                stream.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _release(self, place: TopicPartition, stream: WaitingStream[Any]) -> None:
        reading = self._reading.get(place)
        if reading is not None and stream in reading.streams:
            reading.streams.remove(stream)
            if not reading.streams:
                del self._reading[place]
                self._assign()

    # --- the consumer ---

    async def _end(self, place: TopicPartition) -> int:
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name="read Kafka")
        while True:
            await self._connected.wait()
            if self._closed:
                raise Unavailable("this side of the log is closed")
            consumer = self._consumer
            assert consumer is not None
            try:
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    ends = await consumer.end_offsets([place])
            except (KafkaError, TimeoutError) as error:
                _logger.debug("the end of %s is asked for again: %r", place, error)
                await asyncio.sleep(RETRY_FIRST_S)
            else:
                return int(ends[place])

    async def _run(self) -> None:
        """Read with one consumer after another."""
        loop, pauses = asyncio.get_running_loop(), delays()
        while True:
            began_at = loop.time()
            try:
                self._consumer = await self._connect()
                self._outage.over()
                self._connected.set()
                self._assign()
                await self._read(self._consumer)
            except OrchestratorError as error:
                self._outage.begin(str(error))
            except (KafkaError, TimeoutError) as error:
                self._outage.begin(self._outage.describe(f"nothing can be read: {error!r}"))
            except Exception:
                _logger.exception("reading from Kafka failed; it begins again where it was")
            finally:
                if not self._closed:
                    self._connected.clear()
                consumer, self._consumer = self._consumer, None
                if consumer is not None:
                    await stop_consumer(consumer)
            if loop.time() > began_at + HEALTHY_S:
                pauses = delays()
            await asyncio.sleep(next(pauses))

    def _assign(self) -> None:
        """Tell the consumer what to read, and from where."""
        self._changed.set()
        if self._consumer is None:
            return
        if not self._reading:
            # Not `unsubscribe`: it ends aiokafka's fetching task for good [0.14].
            self._consumer.pause(*self._consumer.assignment())
            return
        self._consumer.assign(list(self._places))
        for place, reading in self._places.items():
            self._consumer.seek(place, reading.feed.position)

    @property
    def _places(self) -> dict[TopicPartition, _Reading]:
        return {**self._reading, **self._beside}

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Hand out what the consumer brings, until it fails."""
        check = _Check(consumer)
        while True:
            if not self._reading:
                self._changed.clear()
                await self._changed.wait()
            try:
                found = await consumer.getmany(timeout_ms=POLL_MS)
            except OffsetOutOfRangeError as error:
                await self._jump(consumer, error.args[0])
                continue
            for place in sorted(found, key=lambda place: place not in self._beside):  # those first
                self._take(place, found[place])
            if check.due():
                await check.look({place: reading.feed.position for place, reading in self._places.items()})

    def _take(self, place: TopicPartition, records: list[ConsumerRecord]) -> None:
        reading = self._places.get(place)
        if reading is not None:
            reading.feed.take([_record(reading.topic, record) for record in records])

    async def _jump(self, consumer: AIOKafkaConsumer, gone: Mapping[TopicPartition, int]) -> None:
        """Positions are outside of their partitions: end the streams there, and go on where records are."""
        places = [place for place in gone if place in self._places]
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            starts = await consumer.beginning_offsets(places)
            ends = await consumer.end_offsets(places)
        for place in places:
            reading = self._places.get(place)
            if reading is None:
                continue
            feed = reading.feed
            lost, goes_on = f"records before {starts[place]} are gone", starts[place]
            if feed.position > ends[place]:
                lost, goes_on = f"it ends at {ends[place]}: it lost records, or was made anew", ends[place]
            self.lost_records += max(0, starts[place] - feed.position)
            error = LogError(
                f"{place.topic}-{place.partition} cannot be read at offset {feed.position}: {lost}"
            )
            _logger.warning("%s; its readers begin anew", error)
            feed.position = goes_on
            for stream in reading.streams:
                stream.end(error)
        self._assign()


class _Check:
    """Notices that a consumer does not bring records that are there."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._behind: dict[TopicPartition, int] = {}
        self._next_at = asyncio.get_running_loop().time() + CHECK_S

    def due(self) -> bool:
        """Whether it is time to look."""
        now = asyncio.get_running_loop().time()
        if now < self._next_at:
            return False
        self._next_at = now + CHECK_S
        return True

    async def look(self, positions: Mapping[TopicPartition, int]) -> None:
        """Raise ``Unavailable`` if a position has stood still since the last look, with records at it."""
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            ends = await self._consumer.end_offsets(list(positions))
        behind = {place: at for place, at in positions.items() if at < ends[place]}
        stuck = [place for place, at in behind.items() if self._behind.get(place) == at]
        self._behind = behind
        if stuck:
            raise Unavailable(f"records of {stuck[0].topic}-{stuck[0].partition} do not come")


def _record(topic: str, record: ConsumerRecord) -> Record:
    headers = {name: value or b"" for name, value in record.headers}
    return Record(
        topic, record.partition, record.offset, record.timestamp, record.key or b"", record.value, headers
    )
