"""The commit log below the embedded log: appends become durable in groups, and readable when they are.

    appenders ──queue──▶ commit:  1. take all that waits  2. decide: offsets, refusals
                                  3. write one batch      4. sync it   5. publish and report
    readers   ◀──tails── (hot, in memory)   ◀──RocksDB── (cold, in slices)

A coordinator that polls commits what waits in its own thread (it *drives* the log): so a record and its
read-back cost no switch of threads, each of which takes as long as deciding two commands. Without one,
or when it is busy for long, a writer thread does it.

A crash before the end of step 4 loses records that nobody was told of, nor could read; after it, none.
Records of ephemeral topics (see ``topics``) go around the writer: they are published by the thread that
appends them. If the storage fails once, the log is *failed* until it is opened anew, for what is on disk
is unknown then: every append in flight and every later one is reported as ``UNKNOWN``.

Folder: ``lock`` (who holds it), ``log.id`` (the cluster id), ``log/`` (RocksDB, see ``record_store``).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, NamedTuple, Protocol, Self
from uuid import uuid4

import msgspec

from orchestrator.codec.avro import MAX_RECORD_BYTES
from orchestrator.errors import ConfigError, LogError
from orchestrator.log.compaction import compact_partition
from orchestrator.log.faults import NO_FAULTS, Fate, FaultHook
from orchestrator.log.folder import FolderLock, read_identity, write_identity
from orchestrator.log.group import Group
from orchestrator.log.port import Delivery, Outcome, Record
from orchestrator.log.record_store import RecordStore
from orchestrator.log.tail import Tail
from orchestrator.log.topics import EMBEDDED_PARTITIONS, TOPICS, USERS_RETENTION_MS, is_users, refusal

_logger = logging.getLogger(__name__)

_FORMAT = b"1"

COMMIT_BYTES = 4 * 1024 * 1024
"""What one batch takes at most: some 10 ms of disk, so that a small append never waits longer."""

READ_BYTES = 4 * 1024 * 1024
"""What one read from disk brings at most, however many records were asked for."""

DELETE_RECORDS = 4_096
"""Deleted at once. Every range deletion slows later scans a little, so they are few and long."""

DRIVER_GRACE_S = 0.1
"""What waits for longer is committed by the writer thread: the driver is in a long step, or stuck."""

_USERS_TOPICS_MARK = "users-topics"

_EPHEMERAL_OFFSET_BITS = 32
"""Offsets of ephemeral topics are above ``generation << 32``, so they grow over restarts."""

TopicPartition = tuple[str, int]


class Lane:
    """What the log remembers of an ordered appender: after the first failure nothing of it lands any more."""

    __slots__ = ("broken", "ordered")

    def __init__(self, *, ordered: bool) -> None:
        self.ordered = ordered
        self.broken = False


class Append(msgspec.Struct, frozen=True, gc=False):
    """A record to append (its offset and time are not known yet), and who is told what became of it.

    ``companions`` land with it, before it, or not at all; their topics are users', and made when needed.
    """

    record: Record
    token: Any
    lane: Lane
    sink: Sink
    companions: tuple[Record, ...] = ()


class Sink(Protocol):
    """Who is told what became of appends. Called by any thread under the log's lock: it only takes notes."""

    def report(self, deliveries: list[Delivery]) -> None:
        """Outcomes, in the order of the appends."""


class Listener(Protocol):
    """Who is told of new records. Called by any thread under the log's lock: it only takes notes."""

    def published(self, places: Collection[TopicPartition]) -> None:
        """These partitions have new records."""


class _Batch:
    """What one commit does: the records that land, all at one time, and what is reported to whom."""

    __slots__ = ("deliveries", "records", "time_ms")

    def __init__(self, time_ms: int) -> None:
        self.time_ms = time_ms
        self.records: dict[TopicPartition, list[Record]] = {}
        self.deliveries: dict[Sink, list[Delivery]] = {}

    def report(self, append: Append, outcome: Outcome, offset: int = -1, error: str = "") -> None:
        if outcome is not Outcome.DELIVERED and append.lane.ordered:
            append.lane.broken = True
        deliveries = self.deliveries.get(append.sink)
        if deliveries is None:
            deliveries = self.deliveries[append.sink] = []
        deliveries.append(Delivery(append.token, outcome, offset, error))


class _Sentence(NamedTuple):
    copies: int
    outcome: Outcome
    error: str = ""


_FATES: Mapping[Fate, _Sentence] = {
    Fate.LAND: _Sentence(1, Outcome.DELIVERED),
    Fate.REFUSE: _Sentence(0, Outcome.REFUSED, "refused by an injected fault"),
    Fate.LOSE: _Sentence(0, Outcome.UNKNOWN, "lost by an injected fault"),
    Fate.LAND_UNSEEN: _Sentence(1, Outcome.UNKNOWN, "acknowledgement lost by an injected fault"),
    Fate.DUPLICATE: _Sentence(2, Outcome.DELIVERED),
}


class CommitLog:
    """All topics of one folder. Methods may be called from any thread.

    Args:
        folder: where the data is; created if missing.
        partitions: of commands and history, fixed when the folder is created.
        max_record_bytes: larger records are refused.
        now_ms: the clock of append times, in Unix milliseconds.
        faults: for tests.

    Raises:
        DataFolderInUse: another process (or another log in this one) has it open.
        ConfigError: the folder cannot be used, is damaged, or has another number of partitions.
    """

    def __init__(
        self,
        folder: Path,
        *,
        partitions: int = EMBEDDED_PARTITIONS,
        max_record_bytes: int = MAX_RECORD_BYTES,
        now_ms: Callable[[], int] = lambda: time_ns() // 1_000_000,
        faults: FaultHook = NO_FAULTS,
    ) -> None:
        self.folder = folder
        self.partitions = partitions
        self.max_record_bytes = max_record_bytes
        self.cluster_id = ""
        """Given to the folder when it was created; whoever keeps offsets of this log keeps it beside them."""
        self.generation = 0
        """Counts how often the folder was opened, and the later changes of assignments."""
        self.failure: LogError | None = None
        """Set once the storage has failed: the process cannot go on and should end."""
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        """Its lock guards tails and listeners and is held for microseconds; notified when
        there is something new."""
        self._now_ms = now_ms
        self._time_ms = 0
        self._faults = faults
        self._closed = False
        self._listeners: list[Listener] = []
        self._on_failure: list[Callable[[LogError], None]] = []
        self._folder_lock = FolderLock(folder)
        try:
            self._open_store()
        except BaseException:
            self._folder_lock.release()
            raise
        self.group = Group(partitions, self.generation, self._raise_generation)
        """The coordinators of this process; guarded by the lock of :attr:`changed`."""
        self._queue: deque[tuple[float, list[Append]]] = deque()
        """Submissions, and since when they wait; guarded by the lock of :attr:`changed`."""
        self._waiting_appends = 0
        self._work = threading.Condition(lock)
        self._committing = threading.Lock()
        self._drivers = 0
        self._publishing: dict[int, Lane] = {}
        self._writer = threading.Thread(target=self._write, name="embedded-log-writer", daemon=True)
        self._writer.start()

    # --- opening and closing ---

    def _open_store(self) -> None:
        identity = read_identity(self.folder)
        self._store = RecordStore(self.folder / "log", create=not identity)
        try:
            self.cluster_id = self._check_identity(identity)
            self.generation = 1 + int(self._store.mark("generation") or 0)
            self._store.put_marks({"generation": str(self.generation).encode()})
            self._store.sync()
            self._tails = {
                (topic.name, partition): self._open_tail(topic.name, partition, topic.ephemeral)
                for topic in TOPICS.values()
                for partition in range(topic.count(self.partitions))
            }
            for name in self._users_topics():
                self._tails[name, 0] = self._open_tail(name, 0, ephemeral=False)
            self._next = {place: tail.end for place, tail in self._tails.items()}
        except BaseException:
            self._store.close()
            raise

    def _check_identity(self, identity: str) -> str:
        found = {name: self._store.mark(name) for name in ("cluster", "format", "partitions")}
        if found["cluster"] is None and not identity:
            cluster_id = uuid4().hex
            self._store.put_marks(
                {
                    "cluster": cluster_id.encode(),
                    "format": _FORMAT,
                    "partitions": str(self.partitions).encode(),
                }
            )
            self._store.sync()
            write_identity(self.folder, cluster_id)
            return cluster_id
        cluster_id = (found["cluster"] or b"").decode()
        if identity not in ("", cluster_id):
            raise ConfigError(
                f"the data folder {self.folder} is mixed up: log.id says {identity!r}, the log itself "
                f"{cluster_id!r}; restore the whole folder from one copy"
            )
        if found["format"] != _FORMAT:
            raise ConfigError(
                f"the data folder {self.folder} has format {found['format']!r}, this version reads "
                f"{_FORMAT!r}; use the version that wrote it"
            )
        count = int(found["partitions"] or 0)
        if count != self.partitions:
            raise ConfigError(
                f"the data folder {self.folder} was created with {count} partitions, {self.partitions} were "
                f"asked for; the number is fixed: use {count}, or a new folder"
            )
        if not identity:
            write_identity(self.folder, cluster_id)
        return cluster_id

    def _open_tail(self, topic: str, partition: int, ephemeral: bool) -> Tail:
        if ephemeral:
            first = self.generation << _EPHEMERAL_OFFSET_BITS
            return Tail(start=first, end=first, ephemeral=True)
        start = int(self._store.mark(_start_mark(topic, partition)) or 0)
        last = self._store.last_offset(topic, partition)
        end = start if last is None else max(start, last + 1)
        return Tail(start=start, end=end, ephemeral=False)

    def _users_topics(self) -> list[str]:
        return (self._store.mark(_USERS_TOPICS_MARK) or b"").decode().split()

    def _make_topic(self, topic: str) -> None:
        """A user's topic exists from its first record on: the mark is in the WAL before that."""
        names = [*self._users_topics(), topic]
        self._store.put_marks({_USERS_TOPICS_MARK: " ".join(names).encode()})
        with self.changed:
            self._tails[topic, 0] = self._open_tail(topic, 0, ephemeral=False)
        self._next[topic, 0] = self._tails[topic, 0].end

    def close(self) -> None:
        """Write what was appended, end the writer, release the folder. Closing again does nothing."""
        with self.changed:
            if self._closed:
                return
            self._closed = True
            self._work.notify()
        self._writer.join()
        self._store.close()
        self._folder_lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- appending ---

    def attach(self, listener: Listener) -> None:
        """Tell the listener of new records from now on."""
        with self.changed:
            self._listeners.append(listener)

    def detach(self, listener: Listener) -> None:
        """Tell the listener no more."""
        with self.changed:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def on_failure(self, call: Callable[[LogError], None]) -> None:
        """Call this once the storage has failed, in the thread that found it; it only takes notes."""
        self._on_failure.append(call)

    def backlog(self) -> int:
        """How many appends wait to be committed."""
        return self._waiting_appends

    def drive(self, *, on: bool) -> None:
        """A coordinator will (or will no longer) call :meth:`commit_waiting` whenever something waits."""
        with self.changed:
            self._drivers += 1 if on else -1
            self._work.notify()

    def submit(self, appends: list[Append]) -> None:
        """Append records. The durable ones of one call are written in one batch, all or nothing.

        Raises:
            LogError: the log is closed.
        """
        durable: list[Append] = []
        with self.changed:
            self._check_open()
            batch = _Batch(self._tick())
            for append in appends:
                topic = TOPICS.get(append.record.topic)
                if topic is not None and topic.ephemeral:
                    self._decide(append, batch)
                else:
                    durable.append(append)
            if batch.deliveries:
                self._publish(batch)
            if durable:
                self._queue.append((monotonic(), durable))
                self._waiting_appends += len(durable)
                if len(self._queue) == 1:  # else whoever commits was woken for the one before
                    if self._drivers:
                        self.changed.notify_all()
                    else:
                        self._work.notify()

    def take_over(self, partition: int) -> Lane:
        """A lane for the publisher of a partition. Nothing in the lanes of former ones lands any more,
        and what has landed is readable when this returns.

        Raises:
            LogError: the log is closed.
        """
        with self._committing, self.changed:
            self._check_open()
            if partition in self._publishing:
                self._publishing[partition].broken = True
            lane = self._publishing[partition] = Lane(ordered=True)
            return lane

    def has_topic(self, topic: str, offset: int) -> bool:
        """Whether a user's topic has a record at or behind an offset. Called under the lock."""
        return (topic, 0) in self._tails and self._tails[topic, 0].end > offset

    def refused_by_fault(self, record: Record) -> bool:
        """Whether a test wants a record of a user's topic to be refused."""
        return self._faults.fate(record.topic, record.partition, record.key) is Fate.REFUSE

    def commit_waiting(self) -> bool:
        """Commit what waits, in the calling thread, one batch at a time; whether anything waited."""
        with self._committing:
            appends: list[Append] = []
            size = 0
            with self.changed:
                while self._queue and size < COMMIT_BYTES:
                    _, taken = self._queue.popleft()
                    appends += taken
                    for append in taken:
                        size += len(append.record.value or b"") + len(append.record.key)
                self._waiting_appends -= len(appends)
            if appends:
                self._commit(appends)
            return bool(appends)

    def _write(self) -> None:
        """The writer thread: commits what waits if nobody drives the log, or the driver is busy elsewhere."""
        while True:
            with self.changed:
                while not self._queue and not self._closed:
                    self._work.wait(DRIVER_GRACE_S if self._drivers else None)
                overdue = not self._queue or monotonic() - self._queue[0][0] >= DRIVER_GRACE_S
                if self._drivers and not overdue and not self._closed:
                    self._work.wait(DRIVER_GRACE_S)
                    continue
            if not self.commit_waiting() and self._closed:
                return

    def _commit(self, appends: list[Append]) -> None:
        batch = _Batch(self._tick())
        try:
            for append in appends:
                self._decide(append, batch)
            if batch.records:
                self._make_durable(batch)
        except Exception as error:
            self._fail(error)
            batch = _Batch(self._time_ms)
            for append in appends:
                batch.report(append, Outcome.UNKNOWN, error=str(self.failure))
        with self.changed:
            self._publish(batch)

    def _make_durable(self, batch: _Batch) -> None:
        self._faults.before_write()
        self._store.write(record for records in batch.records.values() for record in records)
        self._faults.before_sync()
        self._store.sync()
        self._faults.after_sync()

    def _decide(self, append: Append, batch: _Batch) -> None:
        """Decide what becomes of one append; give its record an offset if it lands."""
        lane, draft, companions = append.lane, append.record, append.companions
        if self.failure is not None:
            batch.report(append, Outcome.UNKNOWN, error=str(self.failure))
            return
        if lane.broken:
            batch.report(
                append,
                Outcome.UNKNOWN,
                error="an earlier record of this ordered appender failed, or it was fenced",
            )
            return
        for companion in companions:
            if (companion.topic, 0) not in self._next:
                self._make_topic(companion.topic)
        refused = refusal(draft, self.partitions, self.max_record_bytes)
        if refused:
            batch.report(append, Outcome.REFUSED, error=refused)
            return
        fate = self._faults.fate(draft.topic, draft.partition, draft.key)
        if fate is Fate.LAND and not companions:
            batch.report(append, Outcome.DELIVERED, self._land(draft, batch))
            return
        copies, outcome, error = _FATES[fate]
        offset = -1
        if copies:
            for companion in companions:
                self._land(companion, batch)
            offset = self._land(draft, batch)
            for _ in range(1, 1 if lane.ordered else copies):
                self._land(draft, batch)
        batch.report(append, outcome, offset if outcome is Outcome.DELIVERED else -1, error)

    def _land(self, draft: Record, batch: _Batch) -> int:
        """Give a record its offset, and return it."""
        topic, partition = place = (draft.topic, draft.partition)
        offset = self._next[place]
        landed = Record(topic, partition, offset, batch.time_ms, draft.key, draft.value, draft.headers)
        records = batch.records.get(place)
        if records is None:
            records = batch.records[place] = []
        records.append(landed)
        self._next[place] = offset + 1
        return offset

    def _tick(self) -> int:
        """The time of appends; it never goes back."""
        self._time_ms = max(self._time_ms, self._now_ms())
        return self._time_ms

    def _publish(self, batch: _Batch) -> None:
        """Make records readable and tell everybody. Called under the lock."""
        for place, records in batch.records.items():
            self._tails[place].extend(records)
        for sink, deliveries in batch.deliveries.items():
            sink.report(deliveries)
        if batch.records:
            for listener in self._listeners:
                listener.published(batch.records.keys())
        self.changed.notify_all()

    def _fail(self, error: Exception) -> None:
        self.failure = LogError(
            f"the log in {self.folder} failed and takes no more records: {error}. "
            f"Nothing acknowledged is lost. Free some disk space or repair the disk, then start it again"
        )
        _logger.critical("%s", self.failure, exc_info=error)
        for call in self._on_failure:
            call(self.failure)

    # --- reading ---

    def count(self, topic: str) -> int:
        """The number of partitions of a topic.

        Raises:
            LogError: there is no such topic.
        """
        if is_users(topic) and (topic, 0) in self._tails:
            return 1
        if topic not in TOPICS:
            raise LogError(f"there is no topic {topic!r}; the topics are {', '.join(TOPICS)}")
        return TOPICS[topic].count(self.partitions)

    def tail(self, topic: str, partition: int) -> Tail:
        """The tail of a partition, to be looked at under the lock of :attr:`changed`.

        Raises:
            LogError: there is no such partition.
        """
        found = self._tails.get((topic, partition))
        if found is None:
            raise LogError(
                f"there is no partition {partition} of {topic!r}; it has {self.count(topic)}, from 0"
            )
        return found

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last durable record."""
        with self.changed:
            self._check_open()
            return self.tail(topic, partition).end

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` records (and :data:`READ_BYTES`) from ``offset``, or the first kept one, on.

        Empty only at the end.
        """
        with self.changed:
            self._check_open()
            tail = self.tail(topic, partition)
            end = tail.end
            offset = max(offset, tail.first)
            if offset >= tail.base:
                return tail.slice(offset, limit)
        records: list[Record] = []
        size = 0
        for record in self._store.scan(topic, partition, offset, end):
            records.append(record)
            size += len(record.value or b"")
            if len(records) >= limit or size >= READ_BYTES:
                break
        return records

    # --- forgetting ---

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Let go of the records below an offset: unreadable now, off the disk a little later."""
        with self.changed:
            self._check_open()
            tail = self.tail(topic, partition)
            start = tail.start
            tail.start = max(start, min(before_offset, tail.end))
            moved = tail.start > start
            new_start = tail.start
        if not moved or (topic in TOPICS and TOPICS[topic].ephemeral):
            return
        mark = _start_mark(topic, partition)
        self._store.put_marks({mark: str(new_start).encode()})
        deleted = int(self._store.mark(mark + "/deleted") or 0)
        if new_start - deleted >= DELETE_RECORDS:
            self._store.delete_range(topic, partition, deleted, new_start)
            self._store.put_marks({mark + "/deleted": str(new_start).encode()})

    def compact(
        self,
        *,
        lag_ms: int = 3_600_000,
        tombstone_age_ms: int = 86_400_000,
        events_age_ms: int = USERS_RETENTION_MS,
    ) -> int:
        """Delete superseded records and old tombstones of compacted topics; returns how many.

        What is old on users' topics goes too.

        Takes about a second per 200,000 records, in the calling thread; appends and reads go on meanwhile.

        Args:
            lag_ms: records younger than this are left alone, with what they supersede.
            tombstone_age_ms: tombstones older than this are deleted.
            events_age_ms: records of users' topics that are older than this are deleted.

        Raises:
            LogError: the disk failed.
        """
        now_ms = self._now_ms()
        deleted = 0
        for topic, partition in list(self._tails):
            if is_users(topic):
                self._expire(topic, now_ms - events_age_ms)
            if topic not in TOPICS or not TOPICS[topic].compacted or TOPICS[topic].ephemeral:
                continue
            with self.changed:
                self._check_open()
                tail = self._tails[topic, partition]
                start, end = tail.start, tail.end
            deleted += compact_partition(
                self._store,
                topic,
                partition,
                start=start,
                end=end,
                settled_before_ms=now_ms - lag_ms,
                tombstones_before_ms=now_ms - tombstone_age_ms,
            )
        return deleted

    def _expire(self, topic: str, before_ms: int) -> None:
        """Let go of a user's records up to the first that is young enough."""
        with self.changed:
            tail = self._tails[topic, 0]
            start, end = tail.start, tail.end
        young = (
            record.offset for record in self._store.scan(topic, 0, start, end) if record.time_ms >= before_ms
        )
        self.delete_records(topic, 0, next(young, end))

    def _raise_generation(self) -> int:
        """Count a change of assignments: durable, so that no generation is ever used again."""
        self.generation += 1
        self._store.put_marks({"generation": str(self.generation).encode()})
        self._store.sync()
        return self.generation

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"the log in {self.folder} is closed")


def _start_mark(topic: str, partition: int) -> str:
    return f"start/{topic}/{partition}"
