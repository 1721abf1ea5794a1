"""History becomes rows: the one way into a store for everybody who reads history and does not write it.

A coordinator that restores a partition and a view that follows it fold the same records by the same rules::

    record ──▶ known by its offset? ──▶ decode ──▶ rule of validity ──▶ parts of a turn ──▶ evolve ──▶ rows

Rows are collected until :meth:`HistoryFold.flush` writes them in one batch with the checkpoint, so a store
stands at exactly one offset, and the fold goes on there after any crash.

A run is there from its first turn on. Without it (it was cleaned, or the run was dropped) its other turns
are ignored. A gap in its turns drops it: the cleaner was faster than this reader, or history is damaged.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from orchestrator.codec import avro
from orchestrator.engine import decider, outbox
from orchestrator.engine.state import Changes, RunState
from orchestrator.engine.validity import Parts, Validity
from orchestrator.protocol.events import UnknownEvent
from orchestrator.protocol.records import Claim, Marks, Position, Turn, history_key, turn_keys
from orchestrator.store import keys
from orchestrator.store.indexes import Indexes
from orchestrator.store.partition_store import Checkpoint, PartitionStore
from orchestrator.store.rows import (
    Row,
    encode_state,
    row_of_close,
    row_of_offset,
    rows_of,
    rows_of_erased,
    snapshot_due,
    unpublished_row,
)
from orchestrator.store.summaries import Glance, glance_of

log = logging.getLogger(__name__)

_TOPIC: Final = "history"

MAX_RUNS_KEPT = 10_000
"""States of open runs kept in memory between two flushes: another one is read from the store again."""

MAX_AWAY_MS = 6 * 24 * 3_600_000
"""A store that was not caught up for so long is made again: tombstones are kept for seven days, and whoever
missed one would keep a run for ever that is gone."""

MAX_UNREAD = 100
"""Offsets kept of what was not understood. One that is understood later is enough to rebuild the store."""


class Logged(Protocol):
    """A record of history as a log brings it."""

    @property
    def offset(self) -> int:
        """Its offset."""

    @property
    def key(self) -> bytes:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its bytes; None is a tombstone."""


class _Folding(msgspec.Struct):
    """An open run, ahead of the store by what is not flushed yet."""

    state: RunState
    snapshot_event: int = 0


class HistoryFold:
    """One partition's history on its way into its store. Of one thread.

    ``next_offset`` and ``validity`` say how far it has come, ``marks``, ``covered`` and ``sent_through`` what
    the records say of commands and tasks. ``caught_up_ms`` is for the checkpoint; the reader sets it.
    """

    def __init__(self, store: PartitionStore, *, strict: bool = True) -> None:
        """Go on where the checkpoint of ``store`` stands; nobody else writes to it meanwhile.

        ``strict`` is for whoever decides: an error of the engine itself is raised, for they must know what
        was decided, turns with business events have rows, and so have keys of history that are to get a
        tombstone. Else the run is dropped like one with a gap.
        """
        found = store.checkpoint
        self.store = store
        self._indexes = Indexes(store) if store.indexed else None
        self.validity = Validity(
            epoch=found.epoch, nonce=found.nonce, seq=found.seq, generation=found.generation
        )
        self.next_offset = found.offset
        self.marks = found.marks
        self.covered = set(found.covered)
        self.sent_through = found.sent_through
        self.parts = Parts(found.parts)
        self.caught_up_ms = found.caught_up_ms
        self._unread = found.unread
        self._strict = strict
        self.position, self.trials = found.position, found.trials
        self.claim_offset = found.claim_offset
        self.covered_through = -1
        """The offset of a position that covers the commands of all turns before it."""
        self._from_the_beginning = not found.offset
        self._dropped: set[str] = set()
        """Runs with a gap: their records stay, for whoever looks for the reason."""
        self._runs: OrderedDict[str, _Folding] = OrderedDict()
        self._rows: list[Row] = []
        self._turns: dict[str, list[Turn]] = {}
        """What is not flushed yet, by run id."""
        self._latest: dict[str, str] = {}
        """Run ids by workflow id, of runs whose first turn is not flushed yet."""
        self._gone: set[str] = set()
        """Runs whose removal is not flushed yet."""

    # ------------------------------------------------------------------------------------------ take

    def take(self, record: Logged) -> str:
        """The next record of the partition, in offset order; one that was taken before is skipped.

        Returns why it is to be set aside: it cannot be read, or its run was dropped; "" if all is well.
        """
        if record.offset < self.next_offset:
            return ""
        self.next_offset = record.offset + 1
        if record.value is None:
            self.erase(record.key, record.offset)
            return ""
        try:
            decoded = avro.decode(record.value, _TOPIC)
        except avro.DecodeError as error:
            self._not_understood(record.offset)
            return str(error)
        if not self.validity.judge(decoded):
            return ""
        return self.add(decoded, record.offset)

    def add(self, record: Turn | Position | Claim, offset: int) -> str:
        """A record that counts: whoever applies the rule of validity by itself begins here.

        Returns why its run was dropped; "" if all is well.
        """
        self.next_offset = offset + 1
        if isinstance(record, Claim):
            self.add_claim(record, offset)
            return ""
        self.trials = self.trials.after(record)
        if isinstance(record, Position):
            self.add_position(record, offset)
            return ""
        if any(isinstance(event, UnknownEvent) for event in record.events):
            self._not_understood(offset)
        before = self.parts.open
        whole = self.parts.add(record)
        if record.part == 0:
            self.litter(offset, *map(history_key, before))
        elif whole is None and record.parts:
            self.litter(offset, *map(history_key, (*before, record)))
        if whole is None:
            return ""
        self.advance(whole.marks, whole.sent_through, [cause.offset for cause in whole.causes])
        return self._fold(whole, offset)

    def add_claim(self, claim: Claim, offset: int) -> None:
        """A claim that counts: what is not complete never will be."""
        self.litter(offset, *map(history_key, self.parts.open))
        self.parts.drop()
        self.trials = self.trials.after_claim(claim, self.marks.commands)
        self.claim_offset = offset

    def add_position(self, record: Position, offset: int) -> None:
        """A position that counts; the one before is superseded."""
        if self.position:
            self.litter(offset, self.position)
        self.position = history_key(record)
        self.advance(record.marks, record.sent_through)
        if not any(covered >= self.marks.commands for covered in self.covered):
            self.covered_through = offset

    def litter(self, offset: int, *found: bytes) -> None:
        """Keys of records that never counted or count no longer, as is known from ``offset`` on."""
        if self._strict:
            self._rows += [Row(keys.litter(offset, key), b"") for key in found]

    def advance(self, marks: Marks, sent_through: int, offsets: Sequence[int] = ()) -> None:
        """What a record says of commands: those below ``marks`` and those at ``offsets`` are consumed."""
        self.marks = next_marks(self.marks, marks)
        self.covered.update(offset for offset in offsets if offset >= self.marks.commands)
        self.sent_through = max(self.sent_through, sent_through)

    def _not_understood(self, offset: int) -> None:
        if offset not in self._unread:
            self._unread = (*self._unread, offset)[:MAX_UNREAD]

    # ------------------------------------------------------------------------------------------ runs

    def _fold(self, turn: Turn, offset: int) -> str:
        folding = self._find(turn.run_id)
        if folding is None and turn.turn > 1:
            log.debug("turn %d of run %s is ignored: its first turn is gone", turn.turn, turn.run_id)
            if self._from_the_beginning and turn.run_id not in self._dropped:
                self.litter(offset, *turn_keys(turn))
            return ""
        changes = Changes()
        try:
            state = decider.evolve(folding.state if folding is not None else None, turn, changes)
        except Exception as error:
            if self._strict and not isinstance(error, ValueError):
                raise
            self._remove(turn.run_id)
            self._dropped.add(turn.run_id)
            return f"run {turn.run_id} of {turn.workflow_id!r} is dropped, its history has a gap: {error}"
        if folding is None:
            folding = self._runs[turn.run_id] = _Folding(state)
            self._latest[turn.workflow_id] = turn.run_id
        row = None
        if snapshot_due(state, folding.snapshot_event):
            folding.snapshot_event = state.next_event_id
            row = encode_state(state)
        self._rows += rows_of(turn, changes, state=row, is_open=state.is_open)
        if self._indexes is not None:
            self.note(glance_of(state, changes), turn, offset)
        if self._strict and outbox.has_publications(turn):  # who decides publishes too, and nobody else
            self._rows.append(unpublished_row(offset, turn.run_id, turn.turn, state.workflow_type))
        if not state.is_open:
            self._rows.append(row_of_close(state, offset))
        self._turns.setdefault(turn.run_id, []).append(turn)
        return ""

    def _find(self, run_id: str) -> _Folding | None:
        """A run as it stands, from memory or the store."""
        folding = self._runs.get(run_id)
        if folding is not None:
            self._runs.move_to_end(run_id)
            return folding
        state = self.store.state(run_id) if run_id not in self._gone else None
        if state is None:
            return None
        folding = self._runs[run_id] = _Folding(state)
        return folding

    def erase(self, key: bytes, offset: int) -> None:
        """A tombstone. The first one of a record that counts removes its run: it is past its retention.

        That of a void record says nothing of the run: its key has another epoch.
        """
        self.next_offset = max(self.next_offset, offset + 1)
        words = key.split(b"/")
        if len(words) < 3 or not words[1].isdigit() or not words[2].isdigit():
            return
        run_id, number, epoch = words[0].decode(errors="replace"), int(words[1]), int(words[2])
        pending = (turn for turn in self._turns.get(run_id, ()) if turn.turn == number)
        turn = next(pending, None) or self.store.turn(run_id, number)
        if turn is not None and turn.epoch == epoch:
            erased = (other for turn in self._remove(run_id) for other in turn_keys(turn) if other != key)
            self.litter(offset, *erased)

    def _remove(self, run_id: str) -> list[Turn]:
        """Let a run leave the store; returns its turns."""
        folding = self._find(run_id)
        if folding is None:
            return []
        state = folding.state
        turns = [*self.store.turns(run_id), *self._turns.pop(run_id, ())]
        newest = self._latest.get(state.workflow_id) or self.store.latest_run_id(state.workflow_id)
        self._rows += rows_of_erased(state, turns, latest=newest == run_id)
        if self._indexes is not None:
            self._indexes.forget(run_id, state.start_time_ms)
            self._rows += [Row(keys.offset_of_turn(run_id, turn.turn), None) for turn in turns]
        self._gone.add(run_id)
        del self._runs[run_id]
        if self._latest.get(state.workflow_id) == run_id:
            del self._latest[state.workflow_id]
        return turns

    def note(self, glance: Glance, turn: Turn, offset: int) -> None:
        """How a run looks after a turn: whoever decides has folded it already, and has its other rows."""
        if self._indexes is not None:
            self._indexes.note(glance)
            self._rows.append(row_of_offset(turn, offset))

    # ----------------------------------------------------------------------------------------- flush

    def flush(self, rows: Iterable[Row] = (), *, next_offset: int = 0) -> None:
        """Write everything since the last flush, and ``rows``, in one batch with the checkpoint.

        ``next_offset``: who skipped records by itself says here how far it has come.
        """
        self.next_offset = max(self.next_offset, next_offset)
        self.covered = {offset for offset in self.covered if offset >= self.marks.commands}
        validity = self.validity
        checkpoint = Checkpoint(
            log_id=self.store.checkpoint.log_id,
            offset=self.next_offset,
            epoch=validity.epoch,
            nonce=validity.nonce,
            generation=validity.generation,
            seq=validity.seq,
            marks=self.marks,
            sent_through=self.sent_through,
            covered=tuple(sorted(self.covered)),
            parts=self.parts.open,
            unread=self._unread,
            caught_up_ms=self.caught_up_ms,
            position=self.position,
            trials=self.trials,
            claim_offset=self.claim_offset,
            indexed=self.store.indexed,
        )
        indexes = self._indexes.take_rows() if self._indexes is not None else ()
        self.store.apply([*self._rows, *rows, *indexes], checkpoint)
        self._rows.clear()
        for run_id in self._turns:
            if not self._runs[run_id].state.is_open:
                del self._runs[run_id]
        self._turns.clear()
        self._latest.clear()
        self._gone.clear()
        while len(self._runs) > MAX_RUNS_KEPT:
            self._runs.popitem(last=False)

    def forget(self) -> None:
        """Free the memory that runs take; the store has them."""
        self._runs.clear()


def next_marks(marks: Marks, found: Marks) -> Marks:
    """Marks that have moved on; they never go back."""
    if found.commands <= marks.commands and found.commands_tx <= marks.commands_tx:
        return marks
    return Marks(
        commands=max(found.commands, marks.commands), commands_tx=max(found.commands_tx, marks.commands_tx)
    )


def outgrown(store: PartitionStore, read: Callable[[int], Logged | None]) -> bool:
    """Whether this version understands something that whoever filled the store did not: fold it anew.

    ``read`` brings the record at an offset, or None if it is gone.
    """
    return any(
        record is not None and record.offset == offset and understood(record)
        for offset in store.checkpoint.unread
        for record in [read(offset)]
    )


def understood(record: Logged) -> bool:
    """Whether this version reads all of a record; a tombstone is clear to everybody."""
    if record.value is None:
        return True
    try:
        decoded = avro.decode(record.value, _TOPIC)
    except avro.DecodeError:
        return False
    return not isinstance(decoded, Turn) or not any(
        isinstance(event, UnknownEvent) for event in decoded.events
    )
