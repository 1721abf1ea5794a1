"""What an engine in this process says of itself and of those that beat on its log.

Nobody follows the log for it: it reads on when it is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import time_ns

from orchestrator.codec import avro
from orchestrator.errors import UsageError
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.port import Record
from orchestrator.log.topics import DEAD_LETTERS, HISTORY, WORKERS
from orchestrator.protocol.views import DeadLetterPage, PartitionFollowed, Queues, ViewStatus
from orchestrator.store.partition_store import PartitionStore
from orchestrator.view.pages import read_token, token
from orchestrator.view.queues import queues_of, served
from orchestrator.view.roster import Roster

READ_RECORDS = 1_000
"""Of a topic at a time, so that others get at the log in between."""

MAX_BEATS = 5_000
"""Read at most: those of eighty processes in the minute after which who is silent is forgotten."""


class EmbeddedOverview:
    """Implements ``view.reader.Overview`` for an embedded log. Any thread may ask."""

    def __init__(self, log: EmbeddedLog, stores: Callable[[], Sequence[PartitionStore | None]]) -> None:
        """``stores`` gives the store of each partition, by number; None where there is none yet."""
        self._log, self._stores = log, stores
        self._reading = threading.Lock()
        self._roster = Roster()
        self._heard = 0

    def status(self) -> ViewStatus:
        """How the stores stand, and who beats."""
        roster, now_ms = self._listen(), _now_ms()
        return ViewStatus(
            partitions=tuple(self._followed(number, store) for number, store in enumerate(self._stores())),
            workers=roster.workers(now_ms),
            coordinators=roster.coordinators(now_ms),
            dead_letters=self._log.end(DEAD_LETTERS, 0),
        )

    def queues(self) -> Queues:
        """The task queues: what waits, and who serves them."""
        roster, now_ms = self._listen(), _now_ms()
        return queues_of(roster.workers(now_ms), roster.coordinators(now_ms))

    def served(self) -> frozenset[str]:
        """The queues that some worker takes new work from."""
        return served(self._listen().workers(_now_ms()))

    def dead_letters(self, limit: int = 100, page: str = "") -> DeadLetterPage:
        """What nobody could use, newest first; ``page`` continues an earlier list."""
        before = read_token(page)
        if before and not before.isdigit():
            raise UsageError(f"the page token {page!r} is not one that a list of dead letters has given")
        end = int(before) if before else self._log.end(DEAD_LETTERS, 0)
        first = max(0, end - limit)
        found = [record for record in self._read(DEAD_LETTERS, first) if record.offset < end]
        letters = [avro.decode(record.value or b"", DEAD_LETTERS) for record in reversed(found)]
        return DeadLetterPage(
            letters=tuple(letters), next_page=token(b"%d" % first) if first and found else ""
        )

    def _listen(self) -> Roster:
        """The beats up to now."""
        with self._reading:
            for record in self._read(WORKERS, max(self._heard, self._log.end(WORKERS, 0) - MAX_BEATS)):
                self._heard = record.offset + 1
                if record.value is not None:
                    self._roster.take(avro.decode(record.value, WORKERS), record.time_ms)
        return self._roster

    def _read(self, topic: str, offset: int) -> list[Record]:
        found: list[Record] = []
        while more := self._log.read(topic, 0, offset, READ_RECORDS):
            found += more
            offset = more[-1].offset + 1
        return found

    def _followed(self, number: int, store: PartitionStore | None) -> PartitionFollowed:
        end = self._log.end(HISTORY, number)
        read = store.checkpoint.offset if store is not None else 0
        return PartitionFollowed(
            partition=number, offset=read, lag_records=max(0, end - read), ready=store is not None
        )


def _now_ms() -> int:
    return time_ns() // 1_000_000
