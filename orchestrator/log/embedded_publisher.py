"""Users' topics on the embedded log: records and their mark are one append, so all or nothing is for free."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import LogError
from orchestrator.log.commit_log import Append, CommitLog, Lane
from orchestrator.log.port import Delivery, Outcome, Published
from orchestrator.log.topics import PUBLISHED, publish_records
from orchestrator.protocol.publications import Publication


class EmbeddedPublisher:
    """Implements :class:`orchestrator.log.port.Publisher`.

    What is published is committed by whoever commits next, in one batch with what else waits.
    """

    def __init__(self, log: CommitLog, partition: int) -> None:
        self._log = log
        self._partition = partition
        self._lane: Lane | None = None
        self._delivery: Delivery | None = None

    def open(self) -> bytes | None:
        """Fence older publishers of this partition, and return the mark.

        Raises:
            LogError: the log is closed, or the disk failed.
        """
        self._lane = self._log.take_over(self._partition)
        end = self._log.end(PUBLISHED, self._partition)
        records = self._log.read(PUBLISHED, self._partition, end - 1, 1)
        return records[0].value if records else None

    def publish(self, records: Sequence[Publication], mark: bytes) -> Published:
        """Publish all records and the mark, or nothing; returns when it is durable.

        Raises:
            LogError: the log is closed, or this publisher is not open.
        """
        if self._lane is None:
            raise LogError("the publisher is not open")
        *companions, last = publish_records(self._partition, records, mark)
        for place, record in enumerate(companions):
            if self._log.refused_by_fault(record):
                self._lane.broken = True
                return Published(Outcome.REFUSED, "refused by an injected fault", refused=place)
        self._delivery = None
        self._log.submit([Append(last, None, self._lane, self, tuple(companions))])
        with self._log.changed:
            self._log.changed.wait_for(lambda: self._delivery is not None)
            delivery = self._delivery
        assert delivery is not None
        return Published(delivery.outcome, delivery.error)

    def report(self, deliveries: list[Delivery]) -> None:
        """Called by the log, which then wakes who waits."""
        self._delivery = deliveries[-1]

    def close(self) -> None:
        """Nothing lands any more."""
        if self._lane is not None:
            self._lane.broken = True
