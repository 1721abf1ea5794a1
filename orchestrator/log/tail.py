"""The newest records of one partition, in memory: what hot readers read instead of the disk."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.log.port import Record

RECORD_OVERHEAD_BYTES = 400
"""What a record costs in memory beside its bytes: a tuple, two byte strings, integers [measured: 350-420]."""

DURABLE_TAIL_BYTES = 4 * 1024 * 1024
"""Kept of a partition that is on disk as well; a slower reader reads from there."""

EPHEMERAL_TAIL_BYTES = 16 * 1024 * 1024
"""Kept of a partition that is nowhere else: 30,000 small tasks."""


class Tail:
    """The end of a partition: contiguous records with offsets ``base`` ≤ offset < ``end``.

    ``start`` is the low-water mark: nothing below it may be read, on disk or here. Not thread-safe.
    """

    __slots__ = ("_bytes", "_ephemeral", "_limit", "_records", "base", "end", "start")

    def __init__(self, *, start: int, end: int, ephemeral: bool) -> None:
        self.start = start
        self.base = end
        self.end = end
        self._ephemeral = ephemeral
        self._limit = EPHEMERAL_TAIL_BYTES if ephemeral else DURABLE_TAIL_BYTES
        self._bytes = 0
        self._records: list[Record] = []

    @property
    def first(self) -> int:
        """The first offset that can be read."""
        return max(self.start, self.base) if self._ephemeral else self.start

    def extend(self, records: Sequence[Record]) -> None:
        """Add the next records; forget the oldest quarter when there are too many bytes."""
        self._records += records
        self.end += len(records)
        self._bytes += sum([_cost(record) for record in records])
        if self._bytes > self._limit:
            self._trim()

    def slice(self, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` records from ``offset`` on; ``offset`` is at least ``base``."""
        first = offset - self.base
        return self._records[first : first + limit]

    def _trim(self) -> None:
        target = self._limit * 3 // 4
        dropped = 0
        while self._bytes > target and dropped < len(self._records) - 1:
            self._bytes -= _cost(self._records[dropped])
            dropped += 1
        del self._records[:dropped]
        self.base += dropped


def _cost(record: Record) -> int:
    return RECORD_OVERHEAD_BYTES + len(record.key) + len(record.value or b"")
