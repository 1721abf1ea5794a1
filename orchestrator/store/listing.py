"""What a store's indexes say. Any thread may ask; each answer is of one moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from orchestrator.engine.state import MAX_TIME_MS
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.store import keys
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import FailureRow, MinuteRow
from orchestrator.store.summaries import Pending, Summary


class Span(msgspec.Struct, frozen=True):
    """Starts in a list: from ``newest_ms`` down to ``oldest_ms``, both included, behind the run ``after``."""

    newest_ms: int = MAX_TIME_MS
    oldest_ms: int = 0
    after: bytes = b""

    def of(self, prefix: bytes) -> tuple[bytes, bytes]:
        """The first key and the end of these under a prefix."""
        newest = prefix + keys.place(self.newest_ms, "")
        end = prefix + keys.place(self.oldest_ms, "") + b"\xff"
        return max(newest, prefix + self.after + b"\0") if self.after else newest, end


_decode_summary = msgspec.msgpack.Decoder(Summary).decode
_decode_pending = msgspec.msgpack.Decoder(Pending).decode


Place = tuple[bytes, "Listing", bytes]
"""Where a run stands, in which listing, and what :meth:`Listing.run_at` wants to know besides."""


class Listing:
    """The indexes of one store, which was opened with them."""

    def __init__(self, store: PartitionStore) -> None:
        assert store.indexed, "a store that was opened without indexes has none to be read"
        self._store = store

    def counts(self) -> dict[tuple[WorkflowStatus, str], int]:
        """How many runs there are, by status and type."""
        return {place: runs for place, runs in self._store.counts.copy().items() if runs}

    def groups(self) -> dict[str, FailureRow]:
        """The failure groups, by fingerprint."""
        return self._store.groups.copy()

    def minutes(self) -> dict[int, MinuteRow]:
        """What happened in the minutes of the last day and perhaps before, by their numbers."""
        return self._store.minutes.copy()

    def runs(self, prefixes: Iterable[bytes], span: Span) -> list[Iterator[Place]]:
        """The runs in index ranges (see ``keys``), each range in the order of starts, newest first."""
        scans = self._store.scans([span.of(prefix) for prefix in prefixes])
        return [self._places(scan) for scan in scans]

    def _places(self, scan: Iterator[tuple[bytes, bytes]]) -> Iterator[Place]:
        for key, value in scan:
            yield key[-keys.PLACE_BYTES :], self, value

    def run_at(self, place: bytes, value: bytes = b"") -> Summary | None:
        """The run of a :data:`Place`: in its value, or else in the store; None if it is gone."""
        found = value or self._store.read(keys.STARTS + place)
        return _decode_summary(found) if found else None

    def places_of_ids(self, prefix: str) -> Iterator[bytes]:
        """The places of runs whose workflow id begins so, in no order that is of use."""
        first = keys.ids_from(prefix)
        for key, _ in self._store.scan(first, first + b"\xff"):
            yield key[-keys.PLACE_BYTES :]

    def pending(self, after: bytes = b"") -> Iterator[tuple[bytes, Pending]]:
        """(resume key, activity) of those that have no worker or failed before, oldest run first."""
        first = after + b"\0" if after else keys.PENDING
        for key, value in self._store.scan(first, keys.PENDING + b"\xff"):
            yield key, _decode_pending(value)

    def pending_of(self, run_id: str) -> Iterator[int]:
        """Which activities of a run :meth:`pending` has."""
        first = keys.pending(run_id)
        for key, _ in self._store.scan(first, first + b"\xff" * 5):
            yield keys.activity_of_pending(key)
