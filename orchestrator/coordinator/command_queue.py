"""Commands of one partition that were read and not decided, and how far the partition is consumed."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from orchestrator.log.port import Log, Record
from orchestrator.log.topics import COMMANDS

MAX_WAITING = 5_000
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Commands that cannot be decided so fast are left in the log, not in memory: above either, no more are read,
below half of both they are again."""


class CommandQueue:
    """What waits in one partition of ``commands``."""

    def __init__(self, partition: int, mark: int) -> None:
        """Go on at ``mark``; nothing is read before :meth:`follow`."""
        self.waiting: deque[Record] = deque()
        self.held: dict[int, float] = {}
        """Offsets of commands that were forwarded or set aside, which is not acknowledged yet; since when."""
        self.next_offset = mark
        self._partition = partition
        self._bytes = 0
        self._follows = False

    @property
    def mark(self) -> int:
        """Below it, every command was decided, or has arrived where it was forwarded or set aside."""
        low = self.waiting[0].offset if self.waiting else self.next_offset
        return min([low, *self.held])

    def put(self, record: Record, consumed: int, covered: Collection[int]) -> None:
        """The next record, unless it was read before, lies below ``consumed`` or was decided already."""
        if record.offset < self.next_offset:
            return
        self.next_offset = record.offset + 1
        if record.offset >= consumed and record.offset not in covered:
            self.waiting.append(record)
            self._bytes += len(record.value or b"")

    def pop(self) -> Record:
        """The oldest one that waits."""
        record = self.waiting.popleft()
        self._bytes -= len(record.value or b"")
        return record

    def follow(self, log: Log) -> None:
        """Read on."""
        log.seek(COMMANDS, self._partition, self.next_offset)
        self._follows = True

    def pace(self, log: Log) -> None:
        """Read on, or wait until what was read is decided. For owners."""
        if self._follows:
            if len(self.waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
                self.stop(log)
        elif len(self.waiting) <= MAX_WAITING // 2 and self._bytes <= MAX_WAITING_BYTES // 2:
            self.follow(log)

    def stop(self, log: Log) -> None:
        """Read no more."""
        log.unseek(COMMANDS, self._partition)
        self._follows = False
