"""What a coordinator needs of a log, and nothing more.

Three adapters keep this contract, held by one suite (``tests/conformance``): ``embedded`` (RocksDB),
``simulated`` (one seed, all faults) and ``kafka``. The contract is Kafka's, reduced to what the commit
protocol uses:

- a partition is a sequence of records with growing offsets (gaps are allowed); readers see each record
  once, in offset order, and only when it is durable;
- an *ordered* appender delivers the records of a partition in the order of the calls, without gaps and
  duplicates, as long as none of its outcomes was :attr:`Outcome.UNKNOWN`; after such an outcome its
  later records may or may not have landed, and it must be abandoned;
- membership only says who should try to own a partition; it may lie. The claim protocol
  (``coordinator/ownership.py``) decides.

A log that is somewhere else may be out of reach. :meth:`Log.poll` then brings nothing, and outcomes come late
or are UNKNOWN; what asks (``read``, ``end``, ``seek``, ``partitions``) raises ``Unavailable`` after some
seconds: ask again.

All methods are called from one thread, except :meth:`Log.wake`, :meth:`Log.publisher` and
:meth:`Log.refusal_of_topic`. A :class:`Publisher` has a thread of its own, for what it does may take long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

import msgspec

from orchestrator.protocol.publications import Publication


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as read. ``value`` None is a tombstone. ``time_ms`` is the log's append time.

    The garbage collector does not look at records (``gc=False``), nor at what carries them: tails keep tens
    of thousands, and to walk them again and again took about 4 % of the engine's time.
    """

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes
    value: bytes | None
    headers: Mapping[str, bytes]


class Outcome(Enum):
    """What became of an append."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one append; ``offset`` is set if it was delivered, ``error`` says why not."""

    token: Any
    outcome: Outcome
    offset: int = -1
    error: str = ""


class Change(Enum):
    """A change of membership. ``LOST``: the partition is gone already, without a chance to finish."""

    ASSIGNED = "assigned"
    REVOKED = "revoked"
    LOST = "lost"


class Membership(NamedTuple):
    """One partition of ``commands`` was assigned, revoked or lost, in this generation of the group."""

    change: Change
    partition: int
    generation: int


class Polled(msgspec.Struct):
    """What one poll brought: records in offset order per partition; deliveries in order per appender."""

    records: list[Record]
    deliveries: list[Delivery]
    memberships: list[Membership]


class Appender(Protocol):
    """A producer of its own. Appends are buffered and sent by the next :meth:`Log.poll` at the latest."""

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
        """Append a record; its :class:`Delivery` with ``token`` comes by a later poll."""

    def abandon(self) -> None:
        """Purge what was not sent yet and never use this appender again.

        What was under way may still land, at any later time.
        """


class Published(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one publish; ``refused`` is the place of the record that was refused for good."""

    outcome: Outcome
    error: str = ""
    refused: int = -1


class Publisher(Protocol):
    """Puts records on users' topics for one partition of ``history``, together with a mark: all or nothing.

    The mark is one record of ``published``, in the partition of the same number; it says how far its
    history was published, and is what makes the records exactly once: whoever publishes next reads it
    first. Readers of users' topics that read committed records see those of a publish only if its mark
    counts.

    All methods block, for some seconds at most when the log does not answer, and belong to one thread.
    """

    def open(self) -> bytes | None:
        """Fence all older publishers of this partition; returns the mark, or None if there is none.

        *Fenced* means: whatever they had under way has landed together with its mark, which this returns,
        or never will; and each later publish of theirs fails. Called once, before anything else.

        Raises:
            LogError: it cannot be known; close this one, and open another a little later.
        """

    def publish(self, records: Sequence[Publication], mark: bytes) -> Published:
        """Publish all records, in this order, and the mark; or nothing at all.

        ``DELIVERED``: all of it is there. ``REFUSED``: nothing is, for ``refused`` was refused for good.
        ``UNKNOWN``: it, or nothing, is there or will be, or this publisher was fenced; it must not be
        repeated: close this one, open another, and look at the mark. Only after ``DELIVERED`` may this
        publisher be used again.

        Raises:
            LogError: as ``UNKNOWN``.
        """

    def close(self) -> None:
        """Release everything. What was under way is decided by the next publisher's :meth:`open`."""


class Log(Protocol):
    """A member of the group of coordinators, with its view of the log."""

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""

    def join(self) -> None:
        """Join the group; assignments come by poll."""

    def leave(self) -> None:
        """Leave the group at once; revocations of all assigned partitions come by the next poll."""

    def confirm_membership(self, partition: int) -> bool:
        """Prove by a round trip to the group that this member still is assigned the partition."""

    def appender(self, *, ordered: bool) -> Appender:
        """A new appender. Only ``ordered`` ones promise order and the absence of gaps."""

    def publisher(self, partition: int) -> Publisher:
        """A publisher for the business events of a partition of ``history``; not opened yet."""

    def refusal_of_topic(self, topic: str, size_bytes: int) -> str:
        """Why a user's topic would refuse a record of that size, as far as is known now; "" if it may not.

        Never waits: what is not known yet is looked up in the background.
        """

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Bring the records of a partition from ``offset`` on by poll, until :meth:`unseek`.

        Of ``commands-tx`` come those of committed transactions alone, where the log has transactions.
        """

    def unseek(self, topic: str, partition: int) -> None:
        """Bring no more records of a partition."""

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` durable records from ``offset`` on; empty only at the end."""

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last durable record."""

    def poll(self, timeout_s: float) -> Polled:
        """Send what was appended, wait for something to report for at most ``timeout_s``."""

    def wake(self) -> None:
        """End a running or the next :meth:`poll` early. May be called from any thread."""

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Let go of all records below an offset."""

    def close(self) -> None:
        """Leave the group and release everything. What was under way may still land."""
