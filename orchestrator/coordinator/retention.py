"""What history needs no longer: which keys get a tombstone, and when.

Two kinds of them. *Litter* are records that never counted, or are superseded: late turns of former owners,
older positions, what is left of a run whose first turn is gone. The store keeps a row for each until its
tombstone is read back, so nothing is forgotten when this process ends. A *closed run* is past its retention:
its first turn gets a tombstone; when that is read back, the run leaves the store (``store/fold.py``), and its
other records are litter. Whoever reads history in between sees a run without its first turn, and ignores it.

No key of history is ever written twice, so a tombstone that a former owner sent lands too late to do harm:
what it is about counts no longer for good. Hence they go out unordered, beside what is urgent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from orchestrator import config
from orchestrator.protocol.records import turn_keys
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import Row

TOMBSTONES_PER_SWEEP = 100
"""A sweep costs about as much as deciding so many commands, at most 20 times per second and partition."""

MAX_UNDER_WAY = 1_000
"""Tombstones sent and not read back yet: bounds what is sent again after an outage."""

AGAIN_S = 30.0
"""A tombstone that was not read back by then was lost, or its appender was abandoned."""

DEFAULT_RETENTION_MS = round(config.RETENTION_DAYS * 86_400_000)
"""How long closed runs are kept, unless somebody says otherwise."""


class _Sent(NamedTuple):
    """A tombstone under way, and the row that goes when it is read back; b"" if there is none."""

    row: bytes
    since_s: float


class Cleaner:
    """Chooses the next tombstones of one partition, under one claim."""

    def __init__(self, store: PartitionStore, *, retention_ms: int = DEFAULT_RETENTION_MS) -> None:
        """Begin with the oldest of what the store says."""
        self._store = store
        self._retention_ms = retention_ms
        self._under_way: OrderedDict[bytes, _Sent] = OrderedDict()
        self._litter_from = b""
        self._closed_from = b""
        self.held_back = -1
        """The offset of a closed run's end that something still needs; -1 if there is none."""

    def next(
        self, now_s: float, now_ms: int, *, position: bytes, left_behind: Callable[[int], bool]
    ) -> tuple[list[bytes], list[Row]]:
        """Keys to send tombstones for now, and rows of what is no litter after all.

        ``position`` is the key of the last position, ``left_behind`` says of an offset whether nothing
        needs the turns up to there any more.
        """
        tombstones = self._lost(now_s)
        self._closed_runs(now_s, now_ms, tombstones, left_behind)
        return tombstones, self._litter(now_s, tombstones, position)

    def landed(self, key: bytes) -> list[Row]:
        """The tombstone of a key was read back: the rows to delete."""
        sent = self._under_way.pop(key, None)
        return [Row(sent.row, None)] if sent is not None and sent.row else []

    def _room(self, tombstones: list[bytes]) -> int:
        return min(TOMBSTONES_PER_SWEEP - len(tombstones), MAX_UNDER_WAY - len(self._under_way))

    def _send(self, key: bytes, sent: _Sent, tombstones: list[bytes]) -> None:
        self._under_way[key] = sent
        tombstones.append(key)

    def _lost(self, now_s: float) -> list[bytes]:
        """What is under way for too long is sent again, the oldest first."""
        again: list[bytes] = []
        while self._under_way and len(again) < TOMBSTONES_PER_SWEEP:
            key, sent = next(iter(self._under_way.items()))
            if now_s - sent.since_s < AGAIN_S:
                break
            del self._under_way[key]
            self._send(key, sent._replace(since_s=now_s), again)
        return again

    def _closed_runs(
        self, now_s: float, now_ms: int, tombstones: list[bytes], left_behind: Callable[[int], bool]
    ) -> None:
        self.held_back = -1
        if self._room(tombstones) <= 0:
            return
        for row, run_id, offset in self._store.closed_runs(self._closed_from, now_ms - self._retention_ms):
            if not left_behind(offset):
                self.held_back = offset
                return
            if self._room(tombstones) <= 0:
                return
            self._closed_from = row + b"\0"
            first = self._store.turn(run_id, 1)
            if first is not None:
                self._send(turn_keys(first)[0], _Sent(b"", now_s), tombstones)

    def _litter(self, now_s: float, tombstones: list[bytes], position: bytes) -> list[Row]:
        mistaken: list[Row] = []
        if self._room(tombstones) <= 0:
            return mistaken
        for row, key in self._store.litter(self._litter_from):
            if self._room(tombstones) <= 0:
                break
            self._litter_from = row + b"\0"
            if key == position or self._counts(key):
                mistaken.append(Row(row, None))
            else:
                self._send(key, _Sent(row, now_s), tombstones)
        return mistaken

    def _counts(self, key: bytes) -> bool:
        """Whether a record that counts stands under this key: it was written twice, against the rule."""
        run_id, number, epoch = key.decode().split("/")[:3]
        if not number.isdigit() or run_id == "position":
            return False
        turn = self._store.turn(run_id, int(number))
        return turn is not None and turn.epoch == int(epoch)
