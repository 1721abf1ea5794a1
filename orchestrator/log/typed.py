"""From typed messages to records and back: what all adapters of ``aio`` have in common. No I/O."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from orchestrator.codec import avro
from orchestrator.errors import PayloadError
from orchestrator.log.aio import DeliveredBeat, DeliveredTask
from orchestrator.log.port import Record
from orchestrator.log.topics import CLIENT_HEADER, COMMANDS, REPLIES, TASKS, WORKER_HEADER, WORKERS
from orchestrator.protocol.commands import Command, WorkerLost
from orchestrator.protocol.ids import murmur2, partition_of
from orchestrator.protocol.tasks import Reply, WorkerBeat

_logger = logging.getLogger(__name__)

T = TypeVar("T")

STREAM_MESSAGES = 100_000
"""Kept for a reader that does not read; then the oldest are dropped. Readers far behind are gone."""


def command_record(command: Command, partitions: int) -> Record:
    """The record of a command, addressed to the partition of its workflow id (a lost worker: as it says).

    Raises:
        PayloadError: the command cannot be encoded.
    """
    if isinstance(command, WorkerLost):
        return _draft(COMMANDS, command.partition, command.worker, command)
    partition = partition_of(command.workflow_id, partitions)
    return _draft(COMMANDS, partition, command.workflow_id, command)


def beat_record(beat: WorkerBeat) -> Record:
    """The record of a beat, addressed to the one partition of ``workers``."""
    return _draft(WORKERS, 0, beat.worker, beat)


def _draft(topic: str, partition: int, key: str, message: object) -> Record:
    try:
        return Record(topic, partition, -1, 0, key.encode(), avro.encode(message), {})
    except avro.EncodeError as error:
        raise PayloadError(str(error)) from error


class Channel(NamedTuple, Generic[T]):
    """What is read of a topic, how it is decoded, and which header says for whom it is ("" for all)."""

    topic: str
    header: str
    decode: Callable[[Record], T]


def _task(record: Record) -> DeliveredTask:
    return DeliveredTask(avro.decode(record.value or b"", TASKS), record.time_ms)


def _reply(record: Record) -> Reply:
    reply: Reply = avro.decode(record.value or b"", REPLIES)
    return reply


def _beat(record: Record) -> DeliveredBeat:
    return DeliveredBeat(avro.decode(record.value or b"", WORKERS), record.offset, record.time_ms)


INBOX: Channel[DeliveredTask] = Channel(TASKS, WORKER_HEADER, _task)
REPLY: Channel[Reply] = Channel(REPLIES, CLIENT_HEADER, _reply)
BEAT: Channel[DeliveredBeat] = Channel(WORKERS, "", _beat)


class Stream(Generic[T]):
    """The messages of one partition for one reader, from where the feed stands.

    ``offset`` is the offset after the last record of the partition that was looked at on behalf of this
    reader: it does not pass a message that :meth:`take` has not handed out.
    """

    def __init__(self, feed: Feed[T], name: str) -> None:
        self.partition = feed.partition
        self.offset = feed.position
        self._feed = feed
        self._route = feed.add(name, self)
        self._messages: deque[T] = deque(maxlen=STREAM_MESSAGES)

    def put(self, message: T) -> None:
        """Add a message. Called by the feed."""
        self._messages.append(message)

    def take(self) -> list[T]:
        """All messages that came since the last call."""
        messages = list(self._messages)
        self._messages.clear()
        self.offset = self._feed.position
        return messages

    def looked(self, offset: int) -> None:
        """The partition was looked at up to an offset. Called by the feed."""
        if not self._messages:
            self.offset = offset

    def detach(self) -> None:
        """Read no more."""
        self._feed.remove(self._route, self)


class Feed(Generic[T]):
    """Reads one partition for any number of streams; a record is decoded once, if any of them wants it.

    Args:
        channel: what is read.
        partition: of the channel's topic.
        position: the offset of the first record.
        set_aside: is told of records that cannot be decoded, and why; they are logged and skipped.
    """

    def __init__(
        self,
        channel: Channel[T],
        partition: int,
        position: int,
        set_aside: Callable[[Record, str], None] = lambda record, reason: None,
    ) -> None:
        self.partition = partition
        self._set_aside = set_aside
        self.position = position
        self._channel = channel
        self._streams: dict[bytes, list[Stream[T]]] = {}

    @property
    def readers(self) -> int:
        """How many streams there are."""
        return sum(map(len, self._streams.values()))

    def add(self, name: str, stream: Stream[T]) -> bytes:
        """Hand out messages for ``name`` to a stream; returns the route that it is removed by."""
        route = name.encode() if self._channel.header else b""
        self._streams.setdefault(route, []).append(stream)
        return route

    def remove(self, route: bytes, stream: Stream[T]) -> None:
        """End a stream. Removing it again does nothing."""
        left = [other for other in self._streams.pop(route, []) if other is not stream]
        if left:
            self._streams[route] = left

    def take(self, records: Iterable[Record]) -> None:
        """The next records of the partition. One that cannot be decoded is logged and skipped."""
        header = self._channel.header
        for record in records:
            self.position = record.offset + 1
            streams = self._streams.get(record.headers.get(header, b"") if header else b"")
            if not streams:
                continue
            try:
                message = self._channel.decode(record)
            except avro.DecodeError as error:
                _logger.warning(
                    "skipped a record on %s-%s at offset %s: %s",
                    record.topic,
                    record.partition,
                    record.offset,
                    error,
                )
                self._set_aside(record, str(error))
                continue
            for stream in streams:
                stream.put(message)
        for streams in self._streams.values():
            for stream in streams:
                stream.looked(self.position)


def least_used(name: str, used: dict[int, int], partitions: int) -> int:
    """The partition with the fewest readers; among equals, one that the name decides."""
    first = murmur2(name.encode()) % partitions
    return min(range(partitions), key=lambda p: (used.get(p, 0), (p - first) % partitions))
