"""What leaves a partition, and how far it is acknowledged (``sent_through``)."""

from __future__ import annotations

from collections import deque

import msgspec

from orchestrator.log.port import Delivery, Outcome


class _Sent(msgspec.Struct):
    """A turn whose outgoing records are under way."""

    offset: int
    remaining: int


class Receipt(msgspec.Struct, frozen=True):
    """The token of one outgoing record: which partition's claim sent it, for which turn."""

    partition: int
    nonce: str
    sent: _Sent | None = None
    worker: str = ""
    command: int = -1


class Outflow:
    """Acknowledgements of outgoing records, in the order of the turns that they follow from."""

    def __init__(self, sent_through: int) -> None:
        """Everything up to history's offset ``sent_through`` has left."""
        self.sent_through = sent_through
        self._under_way: deque[_Sent] = deque()

    def expect(self, offset: int, count: int) -> _Sent:
        """A turn at ``offset`` sends ``count`` records."""
        sent = _Sent(offset, count)
        self._under_way.append(sent)
        return sent

    def on_delivery(self, receipt: Receipt, delivery: Delivery) -> str:
        """A record left, or was refused for good (then its words are returned); refused counts as left."""
        if receipt.sent is not None:
            receipt.sent.remaining -= 1
            while self._under_way and self._under_way[0].remaining == 0:
                self.sent_through = self._under_way.popleft().offset
        return delivery.error if delivery.outcome is Outcome.REFUSED else ""
