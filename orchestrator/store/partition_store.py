"""The store of one partition: a fold of its history on disk, in RocksDB.

It can always be rebuilt from history, so its writes are not synced, and a damaged one is wiped, never
guessed at. Rows and the checkpoint that covers them are written in one batch: after any crash the
store stands at exactly one offset of history.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rocksdict import (
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
)

from orchestrator.engine import decider
from orchestrator.engine.state import Changes, Deadline, RunState
from orchestrator.engine.trials import Trials
from orchestrator.errors import OrchestratorError, Unavailable
from orchestrator.protocol.events import ActivityScheduled
from orchestrator.protocol.records import Marks, Turn
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.store import keys
from orchestrator.store.rows import FailureRow, MinuteRow, Refusal, Request, Row

_logger = logging.getLogger(__name__)

BLOCK_CACHE_BYTES = 32 * 1024 * 1024
"""Of all stores of a process together. Open runs live in memory; what is read from disk is mostly cold."""

MEMTABLE_BYTES = 4 * 1024 * 1024
MEMTABLES_BYTES = 32 * 1024 * 1024
"""Of one store, and of all stores of a process together. RocksDB's default of 64 MiB each would be 2 GiB
for 16 partitions while they flush."""

MAX_TURN = 2**63 - 1
"""More than any run has: "to the end"."""

FORMAT = 4
"""Raised when rows change their shape: an older store is rebuilt."""


DAMAGED = "DAMAGED"
"""A file of this name in the folder says that a read found damage: the next opening wipes the store."""


class StoreDamaged(OrchestratorError):
    """A read found damage. The process should end: at its next start the store is rebuilt from history."""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """How far of history the store has come, and the rule of validity's state there.

    ``offset`` is that of the next record to read. ``covered`` are commands at or above ``marks`` that
    turns have decided. ``parts`` are the read parts of a turn that is not complete yet. ``unread`` are
    offsets of records that this version did not understand, or not wholly. ``caught_up_ms`` is when a
    reader was at the end of the partition last, by its clock; 0 if it keeps no account of that.
    ``position`` is the key of the last position that counts, ``trials`` what history says of code that ends
    the process. ``claim_offset`` is where the last claim stands, whose ``nonce`` this is: claims are kept for
    ever, so history says whether it is still the same. ``indexed`` tells a store that lists are read from.
    """

    format: int = FORMAT
    log_id: str = ""
    offset: int = 0
    epoch: int = 0
    nonce: str = ""
    generation: int = 0
    seq: int = 0
    marks: Marks = Marks()
    sent_through: int = -1
    covered: tuple[int, ...] = ()
    parts: tuple[Turn, ...] = ()
    unread: tuple[int, ...] = ()
    caught_up_ms: int = 0
    position: bytes = b""
    trials: Trials = Trials()
    claim_offset: int = -1
    indexed: bool = False


class Unpublished(NamedTuple):
    """A turn whose business events may be unpublished, by its offset of history."""

    offset: int
    run_id: str
    turn: int
    workflow_type: str


class DueDeadline(NamedTuple):
    """A deadline and the run it belongs to."""

    workflow_id: str
    run_id: str
    deadline: Deadline


_encode = msgspec.msgpack.Encoder().encode
_decode_turn = msgspec.msgpack.Decoder(Turn).decode
_decode_state = msgspec.msgpack.Decoder(RunState).decode
_decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode
_decode_unpublished = msgspec.msgpack.Decoder(tuple[str, int, str]).decode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_group = msgspec.msgpack.Decoder(FailureRow).decode
_decode_minute = msgspec.msgpack.Decoder(MinuteRow).decode
_decode_refusal = msgspec.msgpack.Decoder(Refusal).decode


class PartitionStore:
    """Rows of one partition. Reads see what was applied; one thread applies."""

    def __init__(self, folder: Path, *, log_id: str, indexed: bool = False) -> None:
        """Open or make the store; one that is damaged, of another log or not as ``indexed`` is wiped.

        ``indexed``: whoever fills it writes the rows of indexes too, for lists (see ``store.indexes``).
        """
        self.folder = folder
        self.indexed = indexed
        self._writing = threading.Lock()
        self._log_id = log_id
        self._options = _options()
        self._closed = False
        self.damaged = False
        """A read found damage: open the store again, and it is empty."""
        try:
            self._open()
            found = self.checkpoint
            fits = (found.log_id, found.format, found.indexed) == (log_id, FORMAT, indexed)
        except Exception:  # rocksdict raises bare Exceptions; whatever it is, history has it all
            fits = False
        if not fits:  # not above: a cursor in the frames of an error would keep the folder locked
            self.wipe()

    def _open(self) -> None:
        if (self.folder / DAMAGED).exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(self.folder), self._options)
        found = self._db.get(keys.CHECKPOINT)
        self.damaged = False
        self.counts: dict[tuple[WorkflowStatus, str], int] = {}
        """How many runs there are by status and type: as the rows say, which are slow to read for being
        written so often. Whoever writes the indexes changes this; others copy it."""
        self.groups: dict[str, FailureRow] = {}
        """The failure groups, likewise, by fingerprint."""
        self.minutes: dict[int, MinuteRow] = {}
        """What happened in the minutes of the last day, likewise, by their numbers."""
        if self.indexed:
            for key, value in self.scan(keys.COUNTS, keys.COUNTS + b"\xff"):
                self.counts[keys.parse_count(key)] = keys.unpack_offset(value)
            for key, value in self.scan(keys.GROUPS, keys.GROUPS + b"\xff"):
                self.groups[key[1:].decode()] = _decode_group(value)
            for key, value in self.scan(keys.MINUTES, keys.MINUTES + b"\xff" * 9):
                self.minutes[keys.number_of_minute(key)] = _decode_minute(value)
        new = Checkpoint(log_id=self._log_id, indexed=self.indexed)
        self.checkpoint = _decode_checkpoint(found) if found is not None else new

    def wipe(self) -> None:
        """Throw everything away and begin at offset 0."""
        if hasattr(self, "_db"):
            self._db.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._open()

    def close(self) -> None:
        """Close the files. The store must not be used any more. What a failing disk does not take
        now is read from history again.
        """
        self._closed = True
        try:
            self._db.close()
        except Exception as error:
            _logger.warning("the store in %s was not closed in order: %s", self.folder, error)

    # ---------------------------------------------------------------------------------------- write

    def apply(self, rows: Iterable[Row], checkpoint: Checkpoint) -> None:
        """Write rows and the checkpoint that covers them, all or nothing."""
        batch = WriteBatch(raw_mode=True)
        for row in rows:
            if row.value is None:
                batch.delete(row.key)
            else:
                batch.put(row.key, row.value)
        batch.put(keys.CHECKPOINT, _encode(checkpoint))
        with self._writing:
            self._db.write(batch)
        self.checkpoint = checkpoint

    def forget_unpublished(self, offsets: Iterable[int]) -> None:
        """The events of these turns are known to be published. If a crash forgets that, the mark says it."""
        batch = WriteBatch(raw_mode=True)
        for offset in offsets:
            batch.delete(keys.unpublished(offset))
        self._db.write(batch)

    # ----------------------------------------------------------------------------------------- read

    def latest_run_id(self, workflow_id: str) -> str | None:
        """The run id of an id's latest run; None if the id was never used."""
        found = self.read(keys.latest(workflow_id))
        return found.decode() if found is not None else None

    def state(self, run_id: str) -> RunState | None:
        """The state of a run after its last applied turn; None if there is no such run."""
        found = self.read(keys.state(run_id))
        if found is None:
            return None
        state = _decode_state(found)
        for turn in self.turns(run_id, after=state.turn):
            state = decider.evolve(state, turn, Changes())
        return state

    def turns(self, run_id: str, *, after: int = 0, before: int = MAX_TURN) -> Iterator[Turn]:
        """The turns of a run after turn ``after`` and before another one, in order."""
        for _, value in self.scan(keys.turn(run_id, after + 1), keys.turn(run_id, before)):
            yield _decode_turn(value)

    def offsets(self, run_id: str, *, after: int = 0, before: int = MAX_TURN) -> dict[int, int]:
        """Where such turns stand in history, as far as an indexed store has noted it."""
        rows = self.scan(keys.offset_of_turn(run_id, after + 1), keys.offset_of_turn(run_id, before))
        return {keys.number_of_turn(key): keys.unpack_offset(value) for key, value in rows}

    def turn(self, run_id: str, number: int) -> Turn | None:
        """One turn of a run."""
        found = self.read(keys.turn(run_id, number))
        return _decode_turn(found) if found is not None else None

    def scheduled(self, run_id: str, event_id: int) -> tuple[ActivityScheduled, int] | None:
        """An ``ActivityScheduled`` of a run by its event id, with the time of its turn."""
        for turn in self.turns(run_id):
            place = event_id - turn.first_event_id
            if 0 <= place < len(turn.events):
                event = turn.events[place]
                return (event, turn.time_ms) if isinstance(event, ActivityScheduled) else None
        return None

    def request(self, workflow_id: str, request_id: str) -> Request | None:
        """What became of a request id, if it had an effect."""
        found = self.read(keys.request(workflow_id, request_id))
        return _decode_request(found) if found is not None else None

    def unpublished(self, after: int = -1) -> Iterator[Unpublished]:
        """Turns whose business events may be unpublished, behind an offset, in the order of history."""
        for key, value in self.scan(keys.unpublished(after + 1), keys.UNPUBLISHED + b"\xff" * 9):
            yield Unpublished(keys.parse_unpublished(key), *_decode_unpublished(value))

    def count_requests(self, workflow_id: str) -> int:
        """How many requests of an id had an effect, as far as they are remembered."""
        return sum(1 for _ in self.scan(*keys.requests(workflow_id)))

    def oldest_requests(self, workflow_id: str, *, keep: int) -> list[bytes]:
        """Keys of all remembered requests of an id but for the newest ``keep``. Run ids sort by time."""
        found = [(_decode_request(value), key) for key, value in self.scan(*keys.requests(workflow_id))]
        found.sort(key=lambda item: (item[0].run_id, item[0].turn))
        return [key for _, key in found[: max(0, len(found) - keep)]]

    def refusal(self, key: bytes) -> Refusal | None:
        """How a request was refused, by the key of its row."""
        found = self.read(key)
        return _decode_refusal(found) if found is not None else None

    def refusals(self, first: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        """(resume key, time of expiry, key) of refusals in the order of expiry, from a resume key on."""
        for row, _ in self.scan(first or keys.REFUSAL_EXPIRIES, keys.REFUSAL_EXPIRIES + b"\xff" * 9):
            yield row, *keys.parse_refusal_expiry(row)

    def closed_runs(self, first: bytes, until_ms: int) -> Iterator[tuple[bytes, str, int]]:
        """(resume key, run id, offset of its last turn) of runs that were closed before ``until_ms``."""
        for row, value in self.scan(first or keys.CLOSES, keys.closes_until(until_ms)):
            yield row, keys.run_of_close(row), keys.unpack_offset(value)

    def litter(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(resume key, key in history) of records that count no longer, in the order of their finding."""
        for row, _ in self.scan(first or keys.LITTER, keys.LITTER + b"\xff" * 9):
            yield row, keys.key_of_litter(row)

    def open_runs(self) -> Iterator[str]:
        """Run ids of all open runs, oldest first."""
        for key, _ in self.scan(keys.OPEN, keys.OPEN + b"\xff"):
            yield key[1:].decode()

    def deadlines(self, resume: bytes, until_ms: int) -> Iterator[tuple[bytes, DueDeadline]]:
        """(resume key, deadline) in time order from a resume key (b"" at first) to before ``until_ms``."""
        for key, value in self.scan(resume or keys.DEADLINES, keys.deadlines_until(until_ms)):
            run_id, deadline = keys.parse_deadline(key)
            yield key, DueDeadline(value.decode(), run_id, deadline)

    def letters(self, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(resume key, value) of all dead letters, newest first, after a resume key."""
        return self.scan(after + b"\0" if after else keys.LETTERS, keys.LETTERS + b"\xff" * 9)

    @staticmethod
    def deadline_key(time_ms: int) -> bytes:
        """A resume key for :meth:`deadlines` that begins at ``time_ms``."""
        return keys.deadlines_until(time_ms)

    def read(self, key: bytes) -> bytes | None:
        """The value of a row, by its key; None if there is no such row."""
        try:
            found: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._damaged(error) from error
        return found

    def _damaged(self, error: Exception) -> OrchestratorError:
        if self._closed:
            return Unavailable("the store was closed while it was read; try again")
        self.damaged = True
        (self.folder / DAMAGED).touch()
        return StoreDamaged(
            f"the store in {self.folder} is damaged: {error}; start again, and it is rebuilt from history"
        )

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of the rows from a key to before another one."""
        yield from self._walk(self._cursor(end), first)

    def scans(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[Iterator[tuple[bytes, bytes]]]:
        """:meth:`scan` of several ranges as they are at one moment: no write comes in between.

        Cursors that are opened one after another see what is written meanwhile, and so do those of
        ``Rdict.snapshot`` (rocksdict 0.3.29).
        """
        with self._writing:
            cursors = [self._cursor(end) for _, end in ranges]
        return [self._walk(cursor, first) for cursor, (first, _) in zip(cursors, ranges, strict=True)]

    def _cursor(self, end: bytes) -> tuple[Any, ReadOptions]:
        """A cursor, and its options: the end is read from there, and must be kept as long."""
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        return self._db.iter(options), options

    def _walk(self, opened: tuple[Any, ReadOptions], first: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor, _ = opened
        cursor.seek(first)
        while cursor.valid():
            yield cursor.key(), cursor.value()
            cursor.next()
        try:
            cursor.status()  # damage looks like the end
        except Exception as error:
            raise self._damaged(error) from error


@cache
def _shared() -> tuple[Cache, WriteBufferManager]:
    """Memory that all stores of this process share, however many partitions it owns."""
    return Cache(BLOCK_CACHE_BYTES), WriteBufferManager(MEMTABLES_BYTES, False)


def _options() -> Options:
    block_cache, write_buffers = _shared()
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_write_buffer_manager(write_buffers)
    options.set_max_write_buffer_number(2)
    table = BlockBasedOptions()
    table.set_bloom_filter(10, False)
    table.set_block_cache(block_cache)
    options.set_block_based_table_factory(table)
    return options
