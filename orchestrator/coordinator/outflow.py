"""What leaves a partition, and how far it is acknowledged (``sent_through``)."""

from __future__ import annotations

from collections import deque

import msgspec

from orchestrator.log.port import Record
from orchestrator.protocol.tasks import Task


class _Sent(msgspec.Struct, gc=False):
    """A turn whose outgoing records are under way."""

    offset: int
    remaining: int
    since_s: float


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The token of one outgoing record: which partition's claim sent it.

    It is a task that follows from a turn, a command that was forwarded, or one that was set aside.
    """

    partition: int
    nonce: str
    sent: _Sent | None = None
    task: Task | None = None
    forwarded: Record | None = None
    set_aside: Record | None = None


class Outflow:
    """Acknowledgements of outgoing records, in the order of the turns that they follow from."""

    def __init__(self, sent_through: int) -> None:
        """Everything up to history's offset ``sent_through`` has left."""
        self.sent_through = sent_through
        self._under_way: deque[_Sent] = deque()

    def expect(self, offset: int, count: int, now_s: float) -> _Sent:
        """A turn at ``offset`` sends ``count`` records."""
        sent = _Sent(offset, count, now_s)
        self._under_way.append(sent)
        return sent

    def settle(self, receipt: Receipt) -> None:
        """A record was acknowledged, or its refusal has become a fact of its run."""
        assert receipt.sent is not None
        receipt.sent.remaining -= 1
        while self._under_way and self._under_way[0].remaining == 0:
            self.sent_through = self._under_way.popleft().offset

    def has_sent(self, offset: int) -> bool:
        """Whether all records that follow from turns up to an offset are acknowledged."""
        return not self._under_way or self._under_way[0].offset > offset

    def overdue_s(self, now_s: float) -> float:
        """For how long the oldest record has waited for its acknowledgement."""
        return now_s - self._under_way[0].since_s if self._under_way else 0.0
