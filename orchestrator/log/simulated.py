"""The simulated log: Kafka's contract and ugliness, from one seed and a virtual clock, without threads.

Nothing happens by itself: each poll (and :meth:`SimulatedCluster.settle`) first does all that is due by the
clock. Appends travel: they land, are lost, or land much later, also when the appender was abandoned or
its process died meanwhile; acknowledgements travel back, fail, or never come. What holds:

- The records of an *ordered* appender land in a partition in the order of the calls and without gaps:
  behind a lost or refused one nothing lands. Only what is appended after a poll has reported an UNKNOWN may
  land in spite of it. Other appenders promise nothing: order, loss and repetition are drawn.
- Acknowledgements come in order per appender and partition.
- Offsets grow, with gaps. What has landed is readable and stays, but for the cleaner: superseded keys and
  old tombstones vanish from compacted topics at any time, never the last record of a partition.
- Membership lies (see ``simulated_group``).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from msgspec.structs import replace

from orchestrator.codec.avro import MAX_RECORD_BYTES
from orchestrator.errors import AppenderFailed, LogError, Unavailable
from orchestrator.log.faults import NO_FAULTS, Fate, FaultHook
from orchestrator.log.port import Delivery, Outcome, Polled, Record
from orchestrator.log.simulated_faults import Faults
from orchestrator.log.simulated_group import SimulatedGroup
from orchestrator.log.simulated_transactions import SimulatedPublisher, Transactions
from orchestrator.log.topics import EMBEDDED_PARTITIONS, HISTORY, PUBLISHED, TOPICS, is_users, refusal

__all__ = ["Faults", "SimulatedAppender", "SimulatedCluster", "SimulatedMember", "SimulatedParty"]

_NO_HEADERS: Mapping[str, bytes] = {}

Place = tuple[str, int]

POLL_RECORDS = 1_000
"""Brought of one partition by one poll at most, as by the other adapters."""

TOMBSTONE_MS = 60_000
"""Tombstones younger than this are kept: ``delete.retention.ms``, shortened."""


class SimulatedPartition:
    """A sequence of records with growing offsets."""

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self._offsets: list[int] = []
        self._records: list[Record] = []

    def append(self, record: Record) -> None:
        """Add a record; its offset is not below ``end``."""
        self._offsets.append(record.offset)
        self._records.append(record)
        self.end = record.offset + 1

    def read(self, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` records from an offset on."""
        first = bisect_left(self._offsets, max(offset, self.start))
        return self._records[first : first + limit]

    def keep(self, wanted: Callable[[Record], bool]) -> int:
        """Drop all records that are not wanted; returns how many."""
        before = len(self._records)
        self._records = [record for record in self._records if wanted(record)]
        self._offsets = [record.offset for record in self._records]
        return before - len(self._records)


class _Flight:
    """A record under way."""

    __slots__ = ("ack_due_ms", "copies", "due_ms", "error", "offset", "outcome", "purged", "record", "token")

    def __init__(self, record: Record, token: Any) -> None:
        self.record = record
        self.token = token
        self.copies = 1
        self.outcome = Outcome.DELIVERED
        self.error = ""
        self.due_ms = 0
        self.ack_due_ms = 0
        self.offset = -1
        self.purged = False


class _Lane:
    """One appender's way to one partition."""

    __slots__ = ("ack_due_ms", "due_ms", "flying", "silent", "stuck")

    def __init__(self) -> None:
        self.flying: dict[int, _Flight] = {}
        self.due_ms = 0
        self.ack_due_ms = 0
        self.stuck = False
        self.silent = False


class SimulatedCluster:
    """All topics and the group, shared by all simulated processes.

    Args:
        rng: draws everything; the same seed and calls give the same run.
        now_ms: the virtual clock, in Unix milliseconds; never goes back.
        partitions: of commands and history.
        faults: what goes wrong by chance, until :meth:`heal`.
        hook: what goes wrong for sure: its verdict on an append goes before chance.
        tombstone_ms: how long the cleaner keeps tombstones.

    ``counts`` counts each fault that happened, by the name of its rate.
    """

    def __init__(
        self,
        rng: Random,
        now_ms: Callable[[], int],
        *,
        partitions: int = EMBEDDED_PARTITIONS,
        faults: Faults | None = None,
        hook: FaultHook = NO_FAULTS,
        max_record_bytes: int = MAX_RECORD_BYTES,
        tombstone_ms: int = TOMBSTONE_MS,
    ) -> None:
        self.partitions = partitions
        self.now_ms = now_ms
        self.max_record_bytes = max_record_bytes
        self.counts: Counter[str] = Counter()
        self.rng = rng
        self.group = SimulatedGroup(partitions, rng, now_ms, self.counts)
        self.faults = faults or Faults()
        self.group.faults = self.faults
        self.hook = hook
        self.transactions = Transactions(self)
        self.refused_topics: dict[str, str] = {}
        """Users' topics that are known to take nothing, and why."""
        self.stalled = False
        """While set, nothing lands and nothing is acknowledged: the broker is away."""
        self._tombstone_ms = tombstone_ms
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._entries = 0
        self._incarnations: Counter[str] = Counter()
        self._partitions = {
            (topic.name, p): SimulatedPartition()
            for topic in TOPICS.values()
            for p in range(topic.count(partitions))
        }

    def member(self, name: str) -> SimulatedMember:
        """A new process of that name; the former one should have died."""
        return SimulatedMember(self, self.incarnation(name))

    def incarnation(self, name: str) -> str:
        """A name that was never used before."""
        self._incarnations[name] += 1
        return f"{name}#{self._incarnations[name]}"

    def heal(self) -> None:
        """Let nothing go wrong from now on. What is under way still lands; members hear the truth."""
        self.faults = Faults.none()
        self.group.faults = self.faults
        self.group.heal()
        self.stalled = False

    def count(self, topic: str) -> int:
        """Number of partitions of a topic."""
        if topic not in TOPICS:
            raise LogError(f"there is no topic {topic!r}; the topics are {', '.join(TOPICS)}")
        return TOPICS[topic].count(self.partitions)

    def partition(self, topic: str, partition: int) -> SimulatedPartition:
        """A partition's records, as they are now."""
        found = self._partitions.get((topic, partition))
        if found is None:
            raise LogError(
                f"there is no partition {partition} of {topic!r}; it has {self.count(topic)}, from 0"
            )
        return found

    def last_mark(self, partition: int) -> bytes | None:
        """The last record of a partition of ``published``."""
        log = self.partition(PUBLISHED, partition)
        records = log.read(log.start, log.end)
        return records[-1].value if records else None

    def settle(self) -> None:
        """Do all that is due."""
        while self._agenda and self._agenda[0][0] <= self.now_ms() and not self.stalled:
            heapq.heappop(self._agenda)[2]()
        self.group.expire()

    def next_due_ms(self) -> int | None:
        """When the next thing is due; None if nothing is under way."""
        return self._agenda[0][0] if self._agenda else None

    def at(self, due_ms: int, do: Callable[[], None]) -> None:
        """Do something when the clock says so; among equals, in the order of the calls."""
        self._entries += 1
        heapq.heappush(self._agenda, (due_ms, self._entries, do))

    def strikes(self, fault: str) -> bool:
        """Draw whether a fault happens; count it."""
        chance: float = getattr(self.faults, fault)
        if not chance or self.rng.random() >= chance:
            return False
        self.counts[fault] += 1
        return True

    def latency_ms(self) -> int:
        """Draw how long a record or an acknowledgement travels."""
        delayed = self.strikes("delayed")
        return self.rng.randint(0, self.faults.delay_ms if delayed else self.faults.latency_ms)

    def land(self, record: Record) -> int:
        """Append a record now; returns its offset."""
        place = (record.topic, record.partition)
        if is_users(record.topic):
            self._partitions.setdefault(place, SimulatedPartition())
        partition = self._partitions[place]
        offset = partition.end
        if self.strikes("gaps"):
            offset += self.rng.randint(1, 3)
        partition.append(replace(record, offset=offset, time_ms=self.now_ms()))
        return offset

    def disturb(self, name: str) -> None:
        """Draw what goes wrong while a member polls."""
        self.group.disturb(name)
        if self.strikes("cleaned"):
            compacted = [place for place in self._partitions if _is_compacted(place[0])]
            self.clean(*self.rng.choice(compacted))

    def clean(self, topic: str, partition: int, *, up_to: int | None = None) -> int:
        """Clean a partition below an offset (drawn if None); returns how many records vanished."""
        log = self.partition(topic, partition)
        until = self.rng.randint(log.start, log.end) if up_to is None else up_to
        latest = {
            record.key: record.offset for record in log.read(log.start, log.end) if record.offset < until
        }
        oldest_ms = self.now_ms() - self._tombstone_ms
        last = log.end - 1

        def wanted(record: Record) -> bool:
            if record.offset >= until or record.offset == last:
                return True
            return latest.get(record.key) == record.offset and (
                record.value is not None or record.time_ms > oldest_ms
            )

        removed = log.keep(wanted)
        self.counts["records-cleaned"] += removed
        return removed


def _is_compacted(topic: str) -> bool:
    return topic in TOPICS and TOPICS[topic].compacted


class SimulatedAppender:
    """Implements :class:`orchestrator.log.port.Appender`. Made by :meth:`SimulatedParty.appender`."""

    def __init__(self, party: SimulatedParty, *, ordered: bool) -> None:
        self.suspect = False
        """A poll has reported an UNKNOWN of it."""
        self._party = party
        self._cluster = party.cluster
        self._ordered = ordered
        self._fatal = False
        self._abandoned = False
        self._lanes: dict[Place, _Lane] = {}

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
        """Append a record; it is sent by the next poll."""
        self.post(Record(topic, partition, -1, 0, key, value, headers or _NO_HEADERS), token)

    def post(self, record: Record, token: Any) -> None:
        """Append a record whose offset and time are not known yet."""
        if self._abandoned:
            raise AppenderFailed("the appender was abandoned; take a new one")
        self._party.pending.append((self, record, token))

    def abandon(self) -> None:
        """Purge what was not sent yet. What is under way may be cut off, or land later than ever."""
        if self._abandoned:
            return
        self._abandoned = True
        self._party.forget(self)
        cluster = self._cluster
        for lane in self._lanes.values():
            flying = list(lane.flying.values())
            if flying and cluster.strikes("purged"):
                for flight in flying[cluster.rng.randrange(len(flying)) :]:
                    flight.purged = True
            if flying and cluster.strikes("late"):
                extra_ms = cluster.rng.randint(1, cluster.faults.delay_ms)
                for flight in flying:
                    flight.due_ms += extra_ms

    def send(self, record: Record, token: Any) -> None:
        """Put a record on its way."""
        cluster = self._cluster
        lane = self._lanes.setdefault((record.topic, record.partition), _Lane())
        flight = _Flight(record, token)
        self._sentence(flight, lane)
        now_ms = cluster.now_ms()
        flight.due_ms = now_ms + cluster.latency_ms()
        flight.ack_due_ms = flight.due_ms + cluster.latency_ms()
        if self._ordered:
            flight.due_ms = lane.due_ms = max(lane.due_ms, flight.due_ms)
        flight.ack_due_ms = lane.ack_due_ms = max(lane.ack_due_ms, flight.due_ms, flight.ack_due_ms)
        lane.silent = lane.silent or cluster.strikes("silent")
        if flight.copies:
            lane.flying[id(flight)] = flight
            cluster.at(flight.due_ms, lambda: self._arrive(flight, lane))
        if not lane.silent:
            cluster.at(flight.ack_due_ms, lambda: self._acknowledge(flight))

    def _sentence(self, flight: _Flight, lane: _Lane) -> None:
        """Decide what becomes of a record."""
        cluster = self._cluster
        record = flight.record
        if self._ordered and (lane.stuck or self._fatal or self.suspect):
            flight.copies = int(self.suspect and cluster.strikes("stray"))
            flight.outcome = Outcome.UNKNOWN
            flight.error = "an earlier record of this ordered appender failed"
            return
        refused = refusal(record, cluster.partitions, cluster.max_record_bytes)
        fate = Fate.REFUSE if refused else self._fate(record)
        if fate is Fate.REFUSE:
            flight.copies, flight.outcome = 0, Outcome.REFUSED
            flight.error = refused or "refused by an injected fault"
            self._fatal = self._ordered
        elif fate is Fate.LOSE:
            flight.copies, flight.outcome, flight.error = 0, Outcome.UNKNOWN, "timed out"
            lane.stuck = True
        elif fate is Fate.LAND_UNSEEN:
            flight.outcome, flight.error = Outcome.UNKNOWN, "timed out"
        elif fate is Fate.DUPLICATE and not self._ordered:
            flight.copies = 2

    def _fate(self, record: Record) -> Fate:
        fate = self._cluster.hook.fate(record.topic, record.partition, record.key)
        if fate is not Fate.LAND:
            return fate
        for fault, fate in _CHANCES.items():
            if not (self._ordered and fate is Fate.DUPLICATE) and self._cluster.strikes(fault):
                return fate
        return Fate.LAND

    def _arrive(self, flight: _Flight, lane: _Lane) -> None:
        cluster = self._cluster
        if flight.purged:
            return
        if flight.due_ms > cluster.now_ms():  # delayed since it was sent
            cluster.at(flight.due_ms, lambda: self._arrive(flight, lane))
            return
        lane.flying.pop(id(flight), None)
        offset = cluster.land(flight.record)
        flight.offset = offset
        if flight.copies > 1:
            again_ms = cluster.now_ms() + cluster.rng.randint(0, cluster.faults.delay_ms)
            cluster.at(again_ms, lambda: self._repeat(flight.record))

    def _repeat(self, record: Record) -> None:
        self._cluster.land(record)

    def _acknowledge(self, flight: _Flight) -> None:
        if not self._abandoned:
            offset = flight.offset if flight.outcome is Outcome.DELIVERED else -1
            self._party.report(self, Delivery(flight.token, flight.outcome, offset, flight.error))


_CHANCES: Mapping[str, Fate] = {
    "lost": Fate.LOSE,
    "unseen": Fate.LAND_UNSEEN,
    "refused": Fate.REFUSE,
    "duplicated": Fate.DUPLICATE,
}


class SimulatedParty:
    """A process on the simulated log: it appends, and hears what became of it."""

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.alive = True
        self.pending: list[tuple[SimulatedAppender, Record, Any]] = []
        self._appenders: list[SimulatedAppender] = []
        self._deliveries: list[tuple[SimulatedAppender, Delivery]] = []

    def appender(self, *, ordered: bool) -> SimulatedAppender:
        """A new appender."""
        appender = SimulatedAppender(self, ordered=ordered)
        self._appenders.append(appender)
        return appender

    def report(self, appender: SimulatedAppender, delivery: Delivery) -> None:
        """An acknowledgement arrived; the next :meth:`exchange` reports it."""
        self._deliveries.append((appender, delivery))

    def forget(self, appender: SimulatedAppender) -> None:
        """An appender was abandoned."""
        self.pending = [item for item in self.pending if item[0] is not appender]
        self._deliveries = [item for item in self._deliveries if item[0] is not appender]
        self._appenders.remove(appender)

    def exchange(self) -> list[Delivery]:
        """Send what was appended, let happen what is due, hear what became of earlier appends.

        Raises:
            LogError: the process is dead.
        """
        if not self.alive:
            raise LogError(f"the simulated process {self.name} is dead")
        pending, self.pending = self.pending, []
        for appender, record, token in pending:
            appender.send(record, token)
        self.cluster.settle()
        arrived, self._deliveries = self._deliveries, []
        for appender, delivery in arrived:
            appender.suspect = appender.suspect or delivery.outcome is Outcome.UNKNOWN
        return [delivery for _, delivery in arrived]

    def fetch(self, topic: str, partition: int, offset: int) -> list[Record]:
        """What a poll brings of a partition: all there is, some, or nothing."""
        records = self.cluster.partition(topic, partition).read(offset, POLL_RECORDS)
        if records and self.cluster.strikes("partial"):
            return records[: self.cluster.rng.randint(0, len(records) - 1)]
        return records

    def die(self) -> None:
        """The process is gone, with all its memory; what is under way may still land."""
        if self.alive:
            for appender in self._appenders[:]:
                appender.abandon()
            self.alive = False


class SimulatedMember(SimulatedParty):
    """Implements :class:`orchestrator.log.port.Log`. A poll never waits: the simulator moves the clock."""

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        super().__init__(cluster, name)
        self._positions: dict[Place, int] = {}

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""
        return self.cluster.count(topic)

    def join(self) -> None:
        """Join the group; assignments come by poll."""
        self.cluster.group.join(self.name)

    def leave(self) -> None:
        """Leave the group at once; revocations come by the next poll."""
        self.cluster.group.leave(self.name)

    def confirm_membership(self, partition: int) -> bool:
        """Ask the group, which tells the truth."""
        return self.cluster.group.holds(self.name, partition)

    def publisher(self, partition: int) -> SimulatedPublisher:
        """A publisher, not opened yet."""
        return self.cluster.transactions.publisher(partition, lambda: self.alive)

    def refusal_of_topic(self, topic: str, size_bytes: int) -> str:
        """Why a record would be refused: because a test says so."""
        return self.cluster.refused_topics.get(topic, "")

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Bring the records of a partition from ``offset`` on by poll."""
        self.cluster.partition(topic, partition)
        self._positions[topic, partition] = offset

    def unseek(self, topic: str, partition: int) -> None:
        """Bring no more records of a partition."""
        self._positions.pop((topic, partition), None)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` records from ``offset`` on; empty only at the end."""
        self.cluster.settle()
        if topic == HISTORY and self.cluster.strikes("unanswered"):
            raise Unavailable(f"{topic}-{partition} cannot be read: there is no answer")
        return self.cluster.partition(topic, partition).read(offset, limit)

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last record."""
        self.cluster.settle()
        return self.cluster.partition(topic, partition).end

    def poll(self, timeout_s: float) -> Polled:
        """Send what was appended and report what there is; never waits."""
        deliveries = self.exchange()
        memberships = self.cluster.group.poll(self.name)
        self.cluster.disturb(self.name)
        records: list[Record] = []
        places = list(self._positions)
        self.cluster.rng.shuffle(places)
        for place in places:
            fetched = self.fetch(*place, self._positions[place])
            if fetched:
                self._positions[place] = fetched[-1].offset + 1
                records += fetched
        return Polled(records=records, deliveries=deliveries, memberships=memberships)

    def wake(self) -> None:
        """Nothing to wake: a poll never waits."""

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Let go of all records below an offset."""
        log = self.cluster.partition(topic, partition)
        log.start = max(log.start, min(before_offset, log.end))
        log.keep(lambda record: record.offset >= log.start)

    def close(self) -> None:
        """Leave the group; what is under way may still land."""
        if self.alive:
            self.leave()
            self.die()
