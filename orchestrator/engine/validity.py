"""Which records of a history partition count: the rule of validity.

Applied by everybody who reads history (owner, restore, view, foreign readers), in offset order, with
``epoch`` starting at 0:

- a claim is valid iff its epoch is above the current one; it becomes the current one;
- a turn or position is valid iff its epoch is the current one and its seq is above the last of it.

Everything else is void: a late write of a former owner. A large turn comes in parts, each a record of its
own; it counts with its last part, and is void if that does not come before the next claim.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from orchestrator.protocol.records import Claim, HistoryRecord, Turn


class Validity(msgspec.Struct):
    """The fold of a partition's records that decides which count."""

    epoch: int = 0
    nonce: str = ""
    seq: int = 0
    generation: int = 0
    void_records: int = 0

    def judge(self, record: HistoryRecord) -> bool:
        """Whether the next record counts; to be called once for each, in offset order."""
        if isinstance(record, Claim):
            valid = record.epoch > self.epoch
            if valid:
                self.epoch, self.nonce, self.seq = record.epoch, record.nonce, 0
                self.generation = record.generation
        else:
            valid = record.epoch == self.epoch and record.seq > self.seq
            if valid:
                self.seq = record.seq
        if not valid:
            self.void_records += 1
        return valid


class Parts:
    """Puts together turns that came in parts; to be given the records that count, in offset order."""

    def __init__(self, parts: Iterable[Turn] = ()) -> None:
        """Go on with the ``parts`` of a turn that is not complete yet."""
        self._parts = list(parts)

    @property
    def open(self) -> tuple[Turn, ...]:
        """The parts of the turn that is not complete yet."""
        return tuple(self._parts)

    def add(self, part: Turn) -> Turn | None:
        """The next part, or a turn of one part; the whole turn if that completes it.

        A turn of which a part is missing, or was written under another claim, is void.
        """
        if part.part == 0:
            self._parts = []
        self._parts.append(part)
        if not part.parts:
            return None
        parts, self._parts = self._parts, []
        if len(parts) != part.parts or any(other.epoch != part.epoch for other in parts):
            return None
        if part.parts == 1:
            return part
        events = tuple(event for other in parts for event in other.events)
        return msgspec.structs.replace(part, events=events, first_event_id=parts[0].first_event_id)

    def drop(self) -> None:
        """What is not complete never will be: the next claim came."""
        self._parts = []
