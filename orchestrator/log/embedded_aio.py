"""The embedded log as clients and workers in the same process see it: asyncio, typed messages.

The log's threads only take notes here and wake the loop, once for all that has come until the loop runs.
Likewise, what is appended in one turn of the loop is submitted at its end, all at once: the log's lock, a
time and a batch for each command cost as much as to encode it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

from orchestrator.errors import LogError, RecordRefused, Unavailable
from orchestrator.log.aio import BeatStream, Inbox, ReplyStream
from orchestrator.log.commit_log import Append, CommitLog, Lane, TopicPartition
from orchestrator.log.port import Delivery, Outcome, Record
from orchestrator.log.typed import (
    BEAT,
    INBOX,
    REPLY,
    Channel,
    Feed,
    beat_record,
    command_record,
    least_used,
)
from orchestrator.log.waiting import Acknowledgements, Token, WaitingStream
from orchestrator.protocol.commands import Command
from orchestrator.protocol.tasks import WorkerBeat

T = TypeVar("T")

ANSWER_TIMEOUT_S = 30.0
"""A disk that has not answered by then is broken or hopelessly overloaded."""

MAX_BACKLOG = 20_000
"""Appends that may wait for the disk: about a second of its work. More are turned away."""

OUTBOX_BYTES = 256 * 1024
"""So much is submitted at once, without waiting for the turn of the loop to end: batches stay small."""

READ_RECORDS = 1_000
"""Read at once of one partition, so that the loop serves others in between."""


class EmbeddedAioLog:
    """Implements :class:`orchestrator.log.aio.AioLog` for one event loop.

    Make one per process and share it: all its clients and workers read a partition together.
    """

    def __init__(self, log: CommitLog) -> None:
        self._log = log
        self._lane = Lane(ordered=False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._feeds: dict[TopicPartition, Feed[Any]] = {}
        self._streams: list[WaitingStream[Any]] = []
        self._waiting = Acknowledgements(lambda: f"the disk gave no answer for {ANSWER_TIMEOUT_S:.0f} s")
        self._outbox: list[Append] = []
        self._outbox_bytes = 0
        # Notes of the log's threads, guarded by the log's lock.
        self._outcomes: list[Delivery] = []
        self._dirty: set[TopicPartition] = set()
        self._scheduled = False
        log.attach(self)

    def send(self, command: Command) -> asyncio.Future[int]:
        """Append a command to the partition of its workflow id; done when it is durable.

        Raises:
            RecordRefused: the command is too large.
            PayloadError: the command cannot be encoded.
            Unavailable: the log is closed, failed, overloaded or too slow.
        """
        return self._append(lambda: command_record(command, self._log.partitions))

    def post(self, command: Command, on_failed: Callable[[Exception], None]) -> None:
        """Append a command whose answer will tell that it is durable, see the port.

        Costs no future, no deadline and no callback of the loop.
        """
        try:
            self._submit(command_record(command, self._log.partitions), on_failed)
        except Exception as error:
            on_failed(_for_senders(error))

    async def beat(self, beat: WorkerBeat) -> int:
        """Append a beat; returns its offset."""
        return await self._append(lambda: beat_record(beat))

    async def open_inbox(self, worker: str) -> Inbox:
        """Read the least used partition of ``tasks`` from its end, for one worker incarnation."""
        return self._open(INBOX, worker)

    async def open_replies(self, client_id: str) -> ReplyStream:
        """Read the least used partition of ``replies`` from its end, for one client."""
        return self._open(REPLY, client_id)

    async def open_beats(self) -> BeatStream:
        """Read ``workers`` from its end."""
        return self._open(BEAT, "")

    async def close(self) -> None:
        """Read no more; what is not acknowledged yet is ``Unavailable`` to its sender."""
        if self._closed:
            return
        self._flush()
        self._closed = True
        self._log.detach(self)
        self._waiting.fail_all("the log was closed before it answered")
        for stream in self._streams:
            stream.end()

    # --- appending ---

    def _append(self, draft: Callable[[], Record]) -> asyncio.Future[int]:
        future = self._waiting.expect(ANSWER_TIMEOUT_S)
        try:
            self._submit(draft(), future)
        except Exception as error:
            self._waiting.fail(future, _for_senders(error))
        return future

    def _submit(self, record: Record, token: Token) -> None:
        self._check_open()
        if self._log.backlog() + len(self._outbox) >= MAX_BACKLOG:
            raise Unavailable(f"{MAX_BACKLOG} appends wait for the disk already")
        if not self._outbox:
            self._running_loop().call_soon(self._flush)
        self._outbox.append(Append(record, token, self._lane, self))
        self._outbox_bytes += len(record.value or b"")
        if self._outbox_bytes > OUTBOX_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Submit what was appended since the loop's turn began."""
        appends, self._outbox, self._outbox_bytes = self._outbox, [], 0
        if not appends:
            return
        try:
            self._log.submit(appends)
        except LogError as error:
            for append in appends:
                self._resolve(Delivery(append.token, Outcome.UNKNOWN, error=str(error)))

    def _resolve(self, delivery: Delivery) -> None:
        if delivery.outcome is Outcome.DELIVERED:
            self._waiting.settle(delivery.token, delivery.offset)
            return
        refused = delivery.outcome is Outcome.REFUSED
        error = RecordRefused(delivery.error) if refused else Unavailable(delivery.error)
        self._waiting.fail(delivery.token, error)

    def report(self, deliveries: list[Delivery]) -> None:
        """Called by the log, under its lock, from any thread."""
        self._outcomes += deliveries
        self._schedule()

    def published(self, places: Collection[TopicPartition]) -> None:
        """Called by the log, under its lock, from any thread."""
        dirty = [place for place in places if place in self._feeds]
        if dirty:
            self._dirty.update(dirty)
            self._schedule()

    def _schedule(self) -> None:
        if self._scheduled or self._loop is None or self._loop.is_closed():
            return
        self._scheduled = True
        self._loop.call_soon_threadsafe(self._catch_up)

    def _catch_up(self) -> None:
        """On the loop: resolve what was acknowledged, hand out what was published."""
        with self._log.changed:
            self._scheduled = False
            outcomes, self._outcomes = self._outcomes, []
            dirty, self._dirty = self._dirty, set()
        for delivery in outcomes:
            self._resolve(delivery)
        for place in dirty:
            self._read(place)

    # --- reading ---

    def _read(self, place: TopicPartition) -> None:
        feed = self._feeds.get(place)
        if feed is None or self._closed:
            return
        records = self._log.read(*place, feed.position, READ_RECORDS)
        feed.take(records)
        if len(records) == READ_RECORDS:
            self._running_loop().call_soon(self._read, place)

    def _open(self, channel: Channel[T], name: str) -> WaitingStream[T]:
        self._check_open()
        self._running_loop()  # that the log's threads are to wake
        topic = channel.topic
        try:
            used = {p: feed.readers for (t, p), feed in self._feeds.items() if t == topic}
            partition = least_used(name, used, self._log.count(topic))
            with self._log.changed:
                feed = self._feeds.get((topic, partition))
                if feed is None:
                    end = self._log.tail(topic, partition).end
                    feed = self._feeds[topic, partition] = Feed(channel, partition, end)
        except LogError as error:
            raise Unavailable(str(error)) from error
        stream = WaitingStream(feed, name, partial(self._release, (topic, partition)))
        self._streams.append(stream)
        return stream

    def _release(self, place: TopicPartition, stream: WaitingStream[Any]) -> None:
        """A stream was closed."""
        if stream in self._streams:
            self._streams.remove(stream)
        with self._log.changed:
            if place in self._feeds and not self._feeds[place].readers:
                del self._feeds[place]

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this side of the log is closed")


def _for_senders(error: Exception) -> Exception:
    """An error as senders know it: whatever is wrong with the log, it is unavailable."""
    return Unavailable(str(error)) if isinstance(error, LogError) else error
