"""A process that contends for one partition of history, polled by hand, on any log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from time import monotonic

from orchestrator.codec import avro
from orchestrator.coordinator.ownership import Ownership, Phase
from orchestrator.coordinator.runtime import Loop, Repeated
from orchestrator.coordinator.verdicts import Committed, Found, Lost, Read, Verdict
from orchestrator.engine.validity import Validity
from orchestrator.errors import Unavailable
from orchestrator.log.port import Delivery, Log, Record
from orchestrator.log.topics import HISTORY
from orchestrator.protocol.records import Activation, Claim, HistoryRecord, Marks, Position, Turn, history_key
from tests.conformance.log.harness import PATIENCE_S, Harness, read_all

PARTITION = 0


class Clock:
    """A runtime whose time a test moves."""

    def __init__(self, seed: str) -> None:
        self.elapsed_s = 0.0
        self.random = Random(seed)

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + round(self.elapsed_s * 1_000)

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def at(self, point: str) -> None:
        pass

    def repeat(self, name: str, work: Repeated) -> Loop:
        raise AssertionError("an owner of a partition has no other threads")


class Contender:
    """What a coordinator does with its ownership of a partition, and what it has learned."""

    def __init__(self, harness: Harness, name: str) -> None:
        self.harness, self.name = harness, name
        self.member: Log = harness.member()
        self.clock = Clock(name)
        self.it = Ownership(PARTITION, self.member, self.clock, name)
        self.counted: list[tuple[int, HistoryRecord]] = []
        """Turns and positions that count, with their offsets, as this process has learned it."""
        self.committed: list[object] = []
        self.losses: list[str] = []

    def assign(self, generation: int = 1, validity: Validity | None = None, offset: int = 0) -> Contender:
        """Restore, and append a claim."""
        self.it.assign(generation, validity or Validity(), offset)
        deadline = monotonic() + PATIENCE_S
        while self.it.phase is Phase.RESTORING:
            try:
                self._learn(self.it.restore_slice())
            except Unavailable:  # a busy broker may take its time; nothing has changed
                assert monotonic() < deadline, "history cannot be read"
        return self

    def join(self) -> Contender:
        """Become a member of the group, which assigns the partition."""
        self.member.join()
        self.harness.poll(self.member, until=lambda seen: bool(seen.memberships))
        return self

    def own(self, generation: int = 1) -> Contender:
        """Restore, claim, and go on until the claim is read back."""
        self.assign(generation)
        poll(self, until=lambda: self.it.running)
        return self

    def append(self, *entries: str) -> list[Turn]:
        """A turn for each entry, under the present claim."""
        made = []
        for entry in entries:
            epoch, seq = self.it.header()
            made.append(turn(epoch, seq, run_id=f"{self.name}-{entry}"))
            self.it.append([made[-1]], [avro.encode(made[-1])], entry)
        return made

    def step(self) -> None:
        """One poll. As in a coordinator, anything unexpected leads to a new claim."""
        polled = self.member.poll(0.01)
        self.take(polled.deliveries, polled.records)

    def take(self, deliveries: Iterable[Delivery], records: Iterable[Record]) -> None:
        """Look at what polls have brought."""
        for delivery in deliveries:
            if delivery.token is not None:
                self._on(self.it.on_delivery(delivery))
        for record in records:
            if record.topic == HISTORY:
                self._on(self.it.on_record(record))

    def _on(self, verdict: Verdict | None) -> None:
        if isinstance(verdict, Committed):
            self.counted.append((verdict.offset, verdict.record))
            self.committed.append(verdict.entry)
        elif isinstance(verdict, Found):
            self._learn([verdict])
        elif isinstance(verdict, Lost):
            self._learn([verdict.found] if verdict.found else [])
            self.losses.append(verdict.reason)
            self.it.incident()

    def _learn(self, found: Iterable[Read]) -> None:
        self.counted.extend(
            (item.offset, item.record)
            for item in found
            if isinstance(item, Found) and not isinstance(item.record, Claim)
        )

    def wait(self, seconds: float) -> None:
        """Its clock goes on, and it looks at it."""
        self.clock.elapsed_s += seconds
        if self.it.wants_proof:
            self.it.prove()
        else:
            self.it.tick()


def poll(*contenders: Contender, until: Callable[[], bool]) -> None:
    """Step the contenders in turn."""
    deadline = monotonic() + PATIENCE_S
    while not until():
        assert monotonic() < deadline, "it does not come to that"
        for contender in contenders:
            contender.step()
        contenders[0].harness.pass_time()


def steps(*contenders: Contender, count: int = 20) -> None:
    """Step a few times: what was to happen has happened."""
    left = iter(range(count))
    poll(*contenders, until=lambda: next(left, None) is None)


class Foreigner:
    """Writes records of its own to the partition, as a former or rival owner would."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._member = harness.member()
        self._written = 0

    def write(self, *records: HistoryRecord, tombstone: bool = False) -> None:
        """Append records and wait until they have landed."""
        appender = self._member.appender(ordered=True)
        for record in records:
            value = None if tombstone else avro.encode(record)
            appender.append(HISTORY, PARTITION, history_key(record), value)
        self._written += len(records)
        self._harness.poll(self._member, until=lambda seen: len(seen.deliveries) >= self._written)

    def records(self) -> list[Record]:
        """All that is on the log."""
        return read_all(self._member, HISTORY, PARTITION)

    def decoded(self) -> list[tuple[int, HistoryRecord]]:
        """The same, without tombstones."""
        return [(r.offset, avro.decode(r.value, HISTORY)) for r in self.records() if r.value is not None]

    def claims(self) -> list[Claim]:
        """All claims, valid or not."""
        return [record for _, record in self.decoded() if isinstance(record, Claim)]

    def truth(self) -> list[tuple[int, HistoryRecord]]:
        """What counts by the rule of validity alone, as a foreign reader applies it."""
        validity = Validity()
        return [
            (offset, record)
            for offset, record in self.decoded()
            if validity.judge(record) and not isinstance(record, Claim)
        ]


def turn(epoch: int, seq: int, *, run_id: str = "run", number: int = 1) -> Turn:
    """A turn without events."""
    return Turn(
        epoch=epoch,
        seq=seq,
        marks=Marks(),
        sent_through=-1,
        time_ms=0,
        workflow_id="w",
        run_id=run_id,
        turn=number,
        first_event_id=1,
        activation=Activation.NONE,
        events=(),
    )


def position(epoch: int, seq: int) -> Position:
    """A position that says nothing."""
    return Position(epoch=epoch, seq=seq, marks=Marks(), sent_through=-1, time_ms=0)


def claim(epoch: int, *, owner: str = "rival", generation: int = 1) -> Claim:
    """A claim of somebody else."""
    return Claim(epoch=epoch, nonce=f"{owner}-{epoch}", owner=owner, generation=generation, time_ms=0)
