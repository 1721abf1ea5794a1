"""How many runs started and closed in each minute of the last day, as far as a partition knows.

A minute is counted in memory and written with the batch of the turns that it counts, so a crash repeats
nothing. Runs that leave the store stay counted: this tells what happened, not what is there.
"""

from __future__ import annotations

import msgspec

from orchestrator.protocol.values import WorkflowStatus
from orchestrator.store import keys
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import MinuteRow, Row
from orchestrator.store.summaries import Summary

MINUTE_MS = 60_000
"""What is counted together."""

MAX_MINUTES = 1_440
"""Of a partition: a day, if something happens in every minute. Older ones are deleted."""

_encode = msgspec.msgpack.Encoder().encode


class Minutes:
    """Those of one store. Of the thread that writes it."""

    def __init__(self, store: PartitionStore) -> None:
        """Go on where the store stands."""
        self._minutes = store.minutes
        self._touched: set[int] = set()

    def note(self, before: Summary | None, after: Summary | None) -> None:
        """A run changes: None is one that is not there. One that is closed changes no more."""
        if after is None:
            return
        if before is None:
            self._at(after.start_time_ms).started += 1
        if after.close_time_ms:
            minute = self._at(after.close_time_ms)
            if after.status is WorkflowStatus.COMPLETED:
                minute.completed += 1
            else:
                minute.failed += 1

    def take_rows(self) -> list[Row]:
        """The rows of all minutes that changed, for the batch that covers them."""
        rows: list[Row] = []
        while len(self._minutes) > MAX_MINUTES:
            oldest = min(self._minutes)
            del self._minutes[oldest]
            self._touched.discard(oldest)
            rows.append(Row(keys.minute(oldest), None))
        rows += [Row(keys.minute(minute), _encode(self._minutes[minute])) for minute in self._touched]
        self._touched.clear()
        return rows

    def _at(self, time_ms: int) -> MinuteRow:
        minute = time_ms // MINUTE_MS
        self._touched.add(minute)
        found = self._minutes.get(minute)
        if found is None:
            found = self._minutes[minute] = MinuteRow()
        return found
