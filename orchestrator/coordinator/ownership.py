"""Who owns a partition: the log itself decides (the claim protocol).

::

    IDLE ──assign──▶ RESTORING ──at the end: append a claim──▶ CLAIMING ──own claim read back──▶ RUNNING
      ▲                  │                                        │  ▲                             │
      │                  │                      a foreign claim   ▼  │ a wait, membership proven   │
      └──revoke          └──a newer generation──is valid:────▶  OUTBID                             │
         (from anywhere)    has claimed                           ▲──foreign claim─────────────────┤
                                               CLAIMING ◀──anything else unexpected────────────────┤
      IDLE ◀──all of it read back, a foreign claim, or too long── LEAVING ◀──retire, with records under way┘

What a record means follows from the rule of validity alone. While RUNNING, the owner appends turns
with growing ``seq`` and reads them back; one that comes back under its own claim is committed. Anything
unexpected has one treatment: abandon the appender, claim anew, and rebuild from what is read back. What
was in flight is then before that claim, and counts, or after it, and does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import msgspec

from orchestrator.codec import avro
from orchestrator.coordinator.runtime import Runtime, new_id
from orchestrator.coordinator.verdicts import Committed, Erased, Found, Lost, Owned, Read, Verdict, Void
from orchestrator.engine.validity import Validity
from orchestrator.log.port import Appender, Delivery, Log, Outcome, Record
from orchestrator.log.topics import HISTORY
from orchestrator.protocol.records import Claim, HistoryRecord, Position, Turn, history_key

ACK_DEADLINE_S = 10.0
"""An append without an outcome for so long is an incident: our own deadline, for the client's own one
would drop records out of the middle of a batch."""

RESTORE_SLICE_RECORDS = 500
"""Records read per step while restoring, so that other partitions go on."""

OUTBID_WAIT_S = (1.0, 6.0)
"""After a foreign claim: long enough for the group to settle, random so that two do not duel for ever."""

BEHIND_WAIT_S = 10.0
"""While the last valid claim is of a newer generation than this process knows of: its revocation, or its own
new generation, is on the way. A bound, for a group that was made anew counts from 1 again."""

LEAVE_S = 1.0
"""A partition that goes to another process is followed for so long, if anything is under way: about as long
as the other one takes to claim it. What comes back by then is answered; who asked would wait for seconds."""

CLAIM_AGAIN_S = 1.0
"""A claim that the log did not take is made again after so long, so that nobody spins."""

IDLE_S = 3_600.0
"""The log may have forgotten an appender that was silent for so long, and with it what protects the next
batch from loss and repetition. So the next record comes from a new appender, after a new claim."""

MAX_IN_FLIGHT_TURNS = 1_000
MAX_IN_FLIGHT_BYTES = 8 * 1024 * 1024
"""Above either, commands are not polled: bounds memory and the time to drain."""


class Phase(Enum):
    """Where this process stands with a partition."""

    IDLE = "idle"
    RESTORING = "restoring"
    CLAIMING = "claiming"
    OUTBID = "outbid"
    RUNNING = "running"
    LEAVING = "leaving"


class _Flight(msgspec.Struct, gc=False):
    """A record under way. ``entry`` is set for the last record of what was appended together."""

    key: bytes
    record: Turn | Position
    size_bytes: int
    since_s: float
    entry: Any = None
    acknowledged: bool = False


class _Token(msgspec.Struct, frozen=True, gc=False):
    """Ties a delivery to the claim under which the record was appended."""

    partition: int
    nonce: str
    flight: _Flight | None


class Ownership:
    """One partition's claim and what is under way under it."""

    def __init__(self, partition: int, log: Log, runtime: Runtime, owner: str) -> None:
        """Own nothing yet; ``owner`` is this process's incarnation."""
        self.partition = partition
        self.phase = Phase.IDLE
        self.validity = Validity()
        self.next_offset = 0
        self.generation = -1
        self.claims = 0
        self._log, self._runtime, self._owner = log, runtime, owner
        self._nonce = ""
        self._seq = 0
        self._appender: Appender | None = None
        self._flights: deque[_Flight] = deque()
        self._unacknowledged: deque[_Flight] = deque()
        self._claim_again_s = 0.0
        self._outbid_s = 0.0
        self._outbid_wait_s = 0.0
        self._last_append_s = 0.0
        self._leave_by_s = 0.0
        self.in_flight_bytes = 0

    @property
    def running(self) -> bool:
        """Whether turns may be decided and appended."""
        return self.phase is Phase.RUNNING

    @property
    def follows(self) -> bool:
        """Whether what this process appended may come back and count."""
        return self.phase in (Phase.RUNNING, Phase.LEAVING)

    @property
    def in_flight(self) -> int:
        """Records appended and not yet read back."""
        return len(self._flights)

    @property
    def saturated(self) -> bool:
        """Whether so much is in flight that commands must wait."""
        return len(self._flights) >= MAX_IN_FLIGHT_TURNS or self.in_flight_bytes >= MAX_IN_FLIGHT_BYTES

    @property
    def stale(self) -> bool:
        """Whether nothing may be appended under this claim any more, for nothing was for too long."""
        return self.running and self._runtime.monotonic_s() - self._last_append_s > IDLE_S

    @property
    def nonce(self) -> str:
        """The present claim's nonce: results of threads and callbacks carry it."""
        return self._nonce

    def last_entry(self) -> Any:
        """The newest entry in flight, or None."""
        return self._flights[-1].entry if self._flights else None

    def entries(self) -> Iterator[Any]:
        """The entries in flight, oldest first."""
        return (flight.entry for flight in self._flights if flight.entry is not None)

    # ----------------------------------------------------------------------------------- membership

    def assign(self, generation: int, validity: Validity, next_offset: int) -> None:
        """The group says that this process should try; begin from the store's checkpoint."""
        self.generation = generation
        self.validity, self.next_offset = validity, next_offset
        self.phase = Phase.RESTORING

    def retire(self) -> bool:
        """The group says that another process should try; whether there is something to wait for before that.

        Nothing may be appended any more. What is under way is still read back, and counts if it comes before
        another's claim: follow history until :attr:`left`, then :meth:`revoke`.
        """
        if self.phase is Phase.RUNNING and self._flights:
            self.phase = Phase.LEAVING
            self._leave_by_s = self._runtime.monotonic_s() + LEAVE_S
        return self.phase is Phase.LEAVING

    @property
    def left(self) -> bool:
        """Whether there is nothing more to wait for."""
        overdue = self._runtime.monotonic_s() > self._leave_by_s
        return self.phase is Phase.LEAVING and (not self._flights or overdue)

    def revoke(self) -> None:
        """Follow history no longer. What is under way may still land."""
        self._drop_claim()
        self._log.unseek(HISTORY, self.partition)
        self.phase = Phase.IDLE

    def incident(self) -> None:
        """Something unexpected: claim anew. The caller drops what it decided and rebuilds."""
        if self.phase in (Phase.RUNNING, Phase.CLAIMING):
            self._claim()

    def _drop_claim(self) -> None:
        if self._appender is not None:
            self._appender.abandon()
            self._appender = None
        self._nonce = ""
        self._flights.clear()
        self._unacknowledged.clear()
        self.in_flight_bytes = 0

    # -------------------------------------------------------------------------------------- restore

    def restore_slice(self) -> Iterator[Read]:
        """Read on towards the end of history; at the end, claim the partition.

        Raises:
            Unavailable: the log does not answer. Nothing has changed: do it again.
        """
        records = self._log.read(HISTORY, self.partition, self.next_offset, RESTORE_SLICE_RECORDS)
        for record in records:
            self.next_offset = record.offset + 1
            if record.value is None:
                yield Erased(record.key, record.offset)
                continue
            decoded = _decode(record)
            if self.validity.judge(decoded):
                yield Found(decoded, record.offset)
            elif not isinstance(decoded, Claim):
                yield Void(record.key, record.offset)
        if not records:
            self._log.seek(HISTORY, self.partition, self.next_offset)
            if self._behind:
                self._wait()
            else:
                self._claim()

    def _claim(self) -> None:
        """Append a claim, alone: a producer's first batch has no protection against reordering."""
        self._drop_claim()
        self.phase = Phase.CLAIMING
        self._nonce = new_id(self._runtime)
        self._seq = 0
        self._appender = self._log.appender(ordered=True)
        self._claim_again_s = self._runtime.monotonic_s() + ACK_DEADLINE_S
        claim = Claim(
            epoch=self.validity.epoch + 1,
            nonce=self._nonce,
            owner=self._owner,
            generation=self.generation,
            time_ms=self._runtime.wall_ms(),
        )
        self._append(history_key(claim), avro.encode(claim), None)
        self._runtime.at("claimed")

    def tick(self) -> Lost | None:
        """Look at the clock: claims to be repeated, acknowledgements that are overdue."""
        now_s = self._runtime.monotonic_s()
        if self.phase is Phase.CLAIMING and now_s > self._claim_again_s:
            self._claim()
        elif self.phase is Phase.RUNNING and self._unacknowledged:
            waiting_s = now_s - self._unacknowledged[0].since_s
            if waiting_s > ACK_DEADLINE_S:
                return Lost(f"no acknowledgement for {waiting_s:.0f} s")
        return None

    @property
    def wants_proof(self) -> bool:
        """Whether a foreign claim was waited for long enough: claim, if this still is a member's to try."""
        wait_s = BEHIND_WAIT_S if self._behind else self._outbid_wait_s
        return self.phase is Phase.OUTBID and self._runtime.monotonic_s() >= self._outbid_s + wait_s

    def prove(self) -> bool:
        """Claim if the group confirms the membership, which may take seconds, else wait. Whether it did."""
        proven = self._log.confirm_membership(self.partition)
        if proven:
            self._claim()
        else:
            self._wait()
        return proven

    @property
    def _behind(self) -> bool:
        """Whether somebody with a newer generation has claimed the partition."""
        return self.generation < self.validity.generation

    def _wait(self) -> None:
        """Let the group settle before the next claim."""
        low, high = OUTBID_WAIT_S
        self.phase = Phase.OUTBID
        self._outbid_s = self._runtime.monotonic_s()
        self._outbid_wait_s = low + (high - low) * self._runtime.random.random()

    # -------------------------------------------------------------------------------------- running

    def header(self) -> tuple[int, int]:
        """(epoch, seq) of the next record to append."""
        self._seq += 1
        return self.validity.epoch, self._seq

    def append(self, records: Sequence[Turn | Position], values: list[bytes], entry: Any) -> None:
        """Append records that belong together; ``entry`` comes back when the last one is committed."""
        for place, (record, value) in enumerate(zip(records, values, strict=True)):
            last = place == len(records) - 1
            flight = _Flight(
                key=history_key(record),
                record=record,
                size_bytes=len(value),
                since_s=self._runtime.monotonic_s(),
                entry=entry if last else None,
            )
            self._flights.append(flight)
            self._unacknowledged.append(flight)
            self.in_flight_bytes += flight.size_bytes
            self._append(flight.key, value, flight)

    def _append(self, key: bytes, value: bytes, flight: _Flight | None) -> None:
        assert self._appender is not None
        self._last_append_s = self._runtime.monotonic_s()
        token = _Token(self.partition, self._nonce, flight)
        self._appender.append(HISTORY, self.partition, key, value, token=token)

    def on_delivery(self, delivery: Delivery) -> Lost | None:
        """The outcome of an append; those of former claims are of no interest."""
        token: _Token = delivery.token
        if token.nonce != self._nonce:
            return None
        if delivery.outcome is Outcome.DELIVERED:
            if token.flight is not None:
                token.flight.acknowledged = True
                while self._unacknowledged and self._unacknowledged[0].acknowledged:
                    self._unacknowledged.popleft()
            return None
        if self.phase is Phase.CLAIMING:
            self._drop_claim()  # should it land all the same, it is an older claim of this process
            self._claim_again_s = self._runtime.monotonic_s() + CLAIM_AGAIN_S
            return None
        record = token.flight.record if token.flight is not None else None
        refused = record if delivery.outcome is Outcome.REFUSED and isinstance(record, Turn) else None
        return Lost(f"append to history: {delivery.outcome.value}: {delivery.error}", refused=refused)

    def on_record(self, record: Record) -> Verdict | None:
        """The next record of history, in offset order, as it is read back."""
        if record.offset < self.next_offset:
            return None
        self.next_offset = record.offset + 1
        if record.value is None:
            return Erased(record.key, record.offset)
        if self._flights and self._flights[0].key == record.key:
            flight = self._flights.popleft()
            self.in_flight_bytes -= flight.size_bytes
            self.validity.seq += 1
            return Committed(flight.record, flight.entry, record.offset)
        return self._on_foreign(_decode(record), record)

    def _on_foreign(self, decoded: HistoryRecord, record: Record) -> Verdict | None:
        valid, offset = self.validity.judge(decoded), record.offset
        if not valid:
            return None if isinstance(decoded, Claim) else Void(record.key, offset)
        found = Found(decoded, offset)
        if not isinstance(decoded, Claim):
            if self.follows:
                return Lost(f"history has a record of this claim at {offset} that was not awaited", found)
            return found
        if decoded.nonce == self._nonce:
            self.phase = Phase.RUNNING
            self.claims += 1
            return Owned(decoded, offset)
        if decoded.owner == self._owner:
            return Lost("an older claim of this process has landed late", found)
        if self.phase in (Phase.RUNNING, Phase.CLAIMING):
            self._drop_claim()
            self._wait()
        return Lost(f"{decoded.owner} claimed the partition", found)


def is_claim(record: Record, offset: int, nonce: str) -> bool:
    """Whether a record is the claim of this nonce, at this offset."""
    if record.offset != offset or record.value is None:
        return False
    decoded = _decode(record)
    return isinstance(decoded, Claim) and decoded.nonce == nonce


def _decode(record: Record) -> HistoryRecord:
    assert record.value is not None
    decoded = avro.decode(record.value)
    if not isinstance(decoded, Claim | Turn | Position):
        raise avro.DecodeError(f"history holds a {type(decoded).__name__} at offset {record.offset}")
    return decoded
