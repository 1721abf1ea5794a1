"""Which records of a history partition count: the rule of validity.

Applied by everybody who reads history (owner, restore, view, foreign readers), in offset order, with
``epoch`` starting at 0:

- a claim is valid iff its epoch is above the current one; it becomes the current one;
- a turn or position is valid iff its epoch is the current one and its seq is above the last of it.

Everything else is void: a late write of a former owner.
"""

from __future__ import annotations

import msgspec

from orchestrator.protocol.records import Claim, HistoryRecord


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
