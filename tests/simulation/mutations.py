"""Rules taken away one at a time: each must make some seed fail, or the checkers prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from orchestrator.coordinator import retention
from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.intake import Intake
from orchestrator.coordinator.ownership import Ownership, Phase
from orchestrator.coordinator.partition import Partition
from orchestrator.coordinator.publisher import EventPublisher
from orchestrator.coordinator.retention import Cleaner
from orchestrator.coordinator.sender import Sender
from orchestrator.coordinator.verdicts import Found, Void
from orchestrator.engine import activity
from orchestrator.engine.validity import Validity
from orchestrator.log.simulated_transactions import Transactions
from orchestrator.protocol.publications import PublishMark
from orchestrator.protocol.records import Marks
from orchestrator.store import keys, timers
from orchestrator.store.fold import HistoryFold
from orchestrator.store.partition_store import PartitionStore
from orchestrator.worker.inbox import InboxRules


def everything_is_valid(patch: Callable[..., None]) -> None:
    """Late writes of former owners count."""
    original = Validity.judge

    def judge(self: Validity, record: Any) -> bool:
        return original(self, record) or not hasattr(record, "nonce")

    patch(Validity, "judge", judge)


def the_mark_is_the_highest_offset(patch: Callable[..., None]) -> None:
    """A turn's mark covers commands that only later turns decide."""

    def marks(self: Partition, made: Any) -> list[Marks]:
        return [Marks(commands=self.commands.next_offset) for _ in made.drafts]

    patch(Partition, "marks_of", marks)


def what_is_forwarded_has_arrived(patch: Callable[..., None]) -> None:
    """The mark covers commands of transactions that are still on their way to where they are decided."""
    patch(Intake, "mark", property(lambda self: self._next))


def what_is_forwarded_is_a_new_request(patch: Callable[..., None]) -> None:
    """A command that is forwarded again does not have the request id of its place."""
    original = Sender.forward

    def forward(self: Sender, partition: Any, record: Any, command: Any, home: int) -> None:
        original(self, partition, record, replace(command, request_id=""), home)

    patch(Sender, "forward", forward)


def state_is_dropped_under_a_living_claim(patch: Callable[..., None]) -> None:
    """After an incident the owner goes on under its old claim, as if nothing was in flight."""

    def incident(self: Ownership) -> None:
        if self.phase is Phase.RUNNING:
            self._flights.clear()
            self._unacknowledged.clear()
            self._log.seek("commands", self.partition, 0)
        elif self.phase is Phase.CLAIMING:
            self._claim()

    patch(Ownership, "incident", incident)


def workers_forget_deliveries(patch: Callable[..., None]) -> None:
    """A worker does not remember what it was given."""
    original = InboxRules.receive

    def receive(self: InboxRules, batch: Any, **options: Any) -> Any:
        self._unreported.clear()
        return original(self, batch, **options)

    patch(InboxRules, "receive", receive)


def requests_are_forgotten(patch: Callable[..., None]) -> None:
    """The store keeps no request ids."""
    patch(PartitionStore, "request", lambda self, workflow_id, request_id: None)


def nothing_is_sent_again(patch: Callable[..., None]) -> None:
    """A new owner does not send what the old one may not have sent."""
    patch(Coordinator, "_turns_between", lambda self, number, first, end: [])


def timers_are_not_loaded(patch: Callable[..., None]) -> None:
    """Deadlines of the store are not looked at after a restore."""
    patch(timers.Deadlines, "_look_ahead", lambda self, now_ms: setattr(self, "_horizon_ms", 10**15))


def any_attempt_is_accepted(patch: Callable[..., None]) -> None:
    """A result is taken without looking at its attempt."""

    def open_attempt(state: Any, command: Any) -> Any:
        found = state.activities.get(command.activity_id)
        return found if found is not None and found.phase is activity.DISPATCHED else None

    patch(activity, "open_attempt", open_attempt)


def release_before_the_read_back(patch: Callable[..., None]) -> None:
    """Tasks leave when a turn is appended, before it is known to count."""
    original = Partition.seal

    def seal(self: Partition, draft: Any, marks: Any) -> None:
        original(self, draft, marks)
        entry = self.ownership.last_entry()
        if entry.outgoing:
            EARLY[self.number](self, -1, entry.outgoing)
            entry.outgoing = []

    EARLY: dict[int, Any] = {}
    start = Coordinator.step

    def step(self: Coordinator, timeout_s: float = 0.0) -> None:
        for number in self.partitions:
            EARLY[number] = self._sender.send
        start(self, timeout_s)

    patch(Partition, "seal", seal)
    patch(Coordinator, "step", step)


def publishers_are_not_fenced(patch: Callable[..., None]) -> None:
    """A publisher goes on although another one was opened since."""
    patch(Transactions, "is_owner", lambda self, partition, publisher: True)


def the_publish_mark_is_not_read(patch: Callable[..., None]) -> None:
    """A publisher begins with what the store has, whatever was published."""
    patch(EventPublisher, "_decode", lambda self, found: PublishMark(log_id=self._log_id))


def events_are_published_again_after_an_unknown_outcome(patch: Callable[..., None]) -> None:
    """What may have been published is repeated, without a look at the mark."""
    original = EventPublisher._decode

    def decode(self: EventPublisher, found: Any) -> PublishMark:
        if self.progress.through < 0:
            return original(self, found)
        return PublishMark(offset=self.progress.through, log_id=self._log_id)

    patch(EventPublisher, "_decode", decode)


def what_is_held_back_is_forgotten(patch: Callable[..., None]) -> None:
    """The mark moves on over refused events and does not say so."""
    original = EventPublisher._transact

    def transact(self: EventPublisher, items: Any, through: int, held_back: Any) -> Any:
        return original(self, items, through, {})

    patch(EventPublisher, "_transact", transact)


def unpublished_rows_are_not_restored(patch: Callable[..., None]) -> None:
    """A turn that was read while restoring is taken for published."""
    original = HistoryFold._fold

    def fold(self: HistoryFold, turn: Any, offset: int) -> str:
        dropped = original(self, turn, offset)
        self._rows = [row for row in self._rows if row.key[:1] != keys.UNPUBLISHED]
        return dropped

    patch(HistoryFold, "_fold", fold)


def the_last_position_is_litter(patch: Callable[..., None]) -> None:
    """A position gets a tombstone before another one has superseded it."""
    original = HistoryFold.add_position

    def add(self: HistoryFold, record: Any, offset: int) -> None:
        original(self, record, offset)
        self.litter(offset, self.position)
        self.position = b""

    patch(HistoryFold, "add_position", add)


def a_run_goes_end_first(patch: Callable[..., None]) -> None:
    """The last turn of a closed run gets its tombstone before the first one."""
    original = retention.turn_keys

    def first_key(turn: Any) -> list[bytes]:
        cleaner = CLEANING[-1]
        return [original(list(cleaner._store.turns(turn.run_id))[-1])[-1]]

    def closed_runs(self: Any, *args: Any) -> None:
        CLEANING.append(self)
        clean(self, *args)

    CLEANING: list[Any] = []
    clean = Cleaner._closed_runs
    patch(retention, "turn_keys", first_key)
    patch(Cleaner, "_closed_runs", closed_runs)


def what_is_in_flight_is_litter(patch: Callable[..., None]) -> None:
    """Records that the owner reads back are taken for late ones."""
    original = Ownership.on_record

    def on_record(self: Ownership, record: Any) -> Any:
        verdict = original(self, record)
        return Void(record.key, record.offset) if isinstance(verdict, Found) else verdict

    patch(Ownership, "on_record", on_record)


MUTATIONS = (
    everything_is_valid,
    the_mark_is_the_highest_offset,
    what_is_forwarded_has_arrived,
    what_is_forwarded_is_a_new_request,
    state_is_dropped_under_a_living_claim,
    workers_forget_deliveries,
    requests_are_forgotten,
    nothing_is_sent_again,
    timers_are_not_loaded,
    any_attempt_is_accepted,
    release_before_the_read_back,
    publishers_are_not_fenced,
    the_publish_mark_is_not_read,
    events_are_published_again_after_an_unknown_outcome,
    what_is_held_back_is_forgotten,
    unpublished_rows_are_not_restored,
    the_last_position_is_litter,
    a_run_goes_end_first,
    what_is_in_flight_is_litter,
)


@contextmanager
def applied(mutation: Callable[[Callable[..., None]], None]) -> Iterator[None]:
    """Take a rule away, and give it back."""
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, replacement: Any) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, replacement)

    mutation(patch)
    try:
        yield
    finally:
        for owner, name, original in reversed(undo):
            setattr(owner, name, original)
