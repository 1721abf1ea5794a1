"""The embedded log as coordinators see it: a group of members over one :class:`CommitLog`.

Usually there is one member, which is assigned all partitions when it joins, with the folder's start
counter as the generation. Tests make several; then partitions are spread over them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import uuid4

from orchestrator.errors import AppenderFailed
from orchestrator.log.commit_log import Append, CommitLog, Lane, TopicPartition
from orchestrator.log.embedded_publisher import EmbeddedPublisher
from orchestrator.log.port import Delivery, Polled, Record

POLL_RECORDS = 1_000
"""Brought of one partition by one poll: what a step decides at most of one run."""

_NO_HEADERS: Mapping[str, bytes] = {}


class EmbeddedLog(CommitLog):
    """All topics of one folder, for one process; see :class:`CommitLog` for the arguments.

    Coordinators use it through :meth:`member`, clients and workers through
    ``embedded_aio.EmbeddedAioLog``.
    """

    def member(self) -> EmbeddedMember:
        """A new member of the group, that has not joined yet."""
        return EmbeddedMember(self)


class EmbeddedMember:
    """Implements :class:`orchestrator.log.port.Log`.

    All appends between two polls are written in one batch. Deliveries of abandoned appenders are not
    reported.
    """

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._name = uuid4().hex
        self._changed = log.changed
        self._woken = False
        self._closed = False
        self._joined = False
        self._pending: list[Append] = []
        self._deliveries: list[Delivery] = []
        self._positions: dict[TopicPartition, int] = {}
        self._news: set[TopicPartition] = set()
        """Partitions at a position that may have more records; guarded by the lock."""
        log.attach(self)

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""
        return self._log.count(topic)

    # --- membership ---

    def join(self) -> None:
        """Join the group; assignments come by the next poll, which from now on commits what waits."""
        with self._changed:
            self._log.group.join(self._name)
            self._changed.notify_all()
        self._drive(on=True)

    def leave(self) -> None:
        """Leave the group at once; revocations come by the next poll."""
        with self._changed:
            self._log.group.leave(self._name)
            self._changed.notify_all()
        self._drive(on=False)

    def confirm_membership(self, partition: int) -> bool:
        """Whether the partition is assigned to this member and shall not leave it."""
        with self._changed:
            return self._log.group.holds(self._name, partition)

    # --- appending ---

    def appender(self, *, ordered: bool) -> EmbeddedAppender:
        """A new appender."""
        return EmbeddedAppender(self._pending, self._deliveries, ordered=ordered)

    def publisher(self, partition: int) -> EmbeddedPublisher:
        """A publisher, not opened yet. Users' topics are made by their first record, with one partition."""
        return EmbeddedPublisher(self._log, partition)

    def refusal_of_topic(self, topic: str, size_bytes: int) -> str:
        """Every topic takes what a workflow may publish, which is less than a record may have."""
        return ""

    # --- reading ---

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Bring the records of a partition from ``offset`` on by poll."""
        self._log.end(topic, partition)  # raises if there is no such partition
        self._positions[topic, partition] = offset
        with self._changed:
            self._news.add((topic, partition))

    def unseek(self, topic: str, partition: int) -> None:
        """Bring no more records of a partition."""
        self._positions.pop((topic, partition), None)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` durable records from ``offset`` on; empty only at the end."""
        return self._log.read(topic, partition, offset, limit)

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last durable record."""
        return self._log.end(topic, partition)

    def poll(self, timeout_s: float) -> Polled:
        """Send what was appended, wait for something to report for at most ``timeout_s``."""
        self._send()
        with self._changed:
            self._log.group.acknowledge(self._name)
            self._changed.wait_for(self._has_news, timeout_s)
        if self._joined and self._log.backlog():
            self._log.commit_waiting()
        with self._changed:
            self._woken = False
            deliveries = self._deliveries[:]
            self._deliveries.clear()
            memberships = self._log.group.take_news(self._name)
        return Polled(records=self._fetch(), deliveries=deliveries, memberships=memberships)

    def wake(self) -> None:
        """End a running or the next poll early."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Let go of all records below an offset."""
        self._log.delete_records(topic, partition, before_offset)

    def close(self) -> None:
        """Leave the group and release everything; what was not sent is dropped."""
        if not self._closed:
            self._closed = True
            self._pending.clear()
            self._log.detach(self)
            self.leave()

    def published(self, places: Collection[TopicPartition]) -> None:
        """Called by the log, under the lock."""
        self._news.update(place for place in places if place in self._positions)

    def _drive(self, *, on: bool) -> None:
        if self._joined is not on:
            self._joined = on
            self._log.drive(on=on)

    def _send(self) -> None:
        if self._pending:
            appends = self._pending[:]
            self._pending.clear()
            self._log.submit(appends)

    def _has_news(self) -> bool:
        """Whether a poll has something to report or to commit. Called under the lock."""
        if self._joined and self._log.backlog():
            return True
        return bool(self._news or self._woken or self._deliveries or self._log.group.has_news(self._name))

    def _fetch(self) -> list[Record]:
        fetched: list[Record] = []
        with self._changed:
            news, self._news = self._news, set()
        for place in sorted(news & self._positions.keys()):
            records = self._log.read(*place, self._positions[place], POLL_RECORDS)
            if records:
                self._positions[place] = records[-1].offset + 1
                fetched += records
                with self._changed:
                    if self._positions[place] < self._log.tail(*place).end:
                        self._news.add(place)
        return fetched


class EmbeddedAppender:
    """Implements :class:`orchestrator.log.port.Appender`. Made by :meth:`EmbeddedMember.appender`."""

    def __init__(self, pending: list[Append], deliveries: list[Delivery], *, ordered: bool) -> None:
        self._pending = pending
        self._deliveries = deliveries
        self._lane = Lane(ordered=ordered)
        self._abandoned = False

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes,
        value: bytes | None,
        *,
        headers: Mapping[str, bytes] | None = None,
        token: Any = None,
    ) -> None:
        """Append a record; its delivery with ``token`` comes by a later poll.

        Raises:
            AppenderFailed: the appender was abandoned.
        """
        if self._abandoned:
            raise AppenderFailed("the appender was abandoned; take a new one")
        record = Record(topic, partition, -1, 0, key, value, headers or _NO_HEADERS)
        self._pending.append(Append(record, token, self._lane, self))

    def abandon(self) -> None:
        """Purge what was not sent yet; report nothing more."""
        self._abandoned = True
        self._pending[:] = [append for append in self._pending if append.sink is not self]

    def report(self, deliveries: list[Delivery]) -> None:
        """Called by the log."""
        if not self._abandoned:
            self._deliveries += deliveries
