"""One partition of a coordinator: what it has read, what it holds in memory, what is in flight.

In memory are runs, deadlines and requests ahead of the store; all of it is dropped and rebuilt from the
store when the claim changes. ``Entry`` ties a turn in flight to everything that happens when it is read
back: rows for the store, then tasks and answers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from orchestrator.codec import avro
from orchestrator.coordinator.caution import Caution
from orchestrator.coordinator.command_queue import CommandQueue
from orchestrator.coordinator.dispatch import ActivityRef, Dispatcher
from orchestrator.coordinator.drafts import Answer, Draft, Input, Made, RefusedDelivery, Resume, turn_of
from orchestrator.coordinator.intake import Intake
from orchestrator.coordinator.outflow import Outflow, Receipt
from orchestrator.coordinator.ownership import Ownership
from orchestrator.coordinator.publishing import Publishing
from orchestrator.coordinator.retention import DEFAULT_RETENTION_MS, Cleaner
from orchestrator.coordinator.retries import Retries
from orchestrator.coordinator.runs import MAX_RUNS_IN_MEMORY, Run, Runs
from orchestrator.coordinator.verdicts import Committed, Erased, Found, Read, Void
from orchestrator.coordinator.watchdog import Watch
from orchestrator.engine import activity, outbox
from orchestrator.engine.outbox import Outgoing
from orchestrator.engine.state import ActivityPhase, ActivityState, RunState
from orchestrator.log.port import Log, Record
from orchestrator.log.topics import COMMANDS_TX
from orchestrator.protocol.commands import AwaitResult
from orchestrator.protocol.events import ActivityScheduled
from orchestrator.protocol.records import MAX_PART_BYTES, Claim, Marks, Position, Turn
from orchestrator.protocol.tasks import CancelTask
from orchestrator.store.fold import HistoryFold
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.refusals import Refusals
from orchestrator.store.rows import Row, row_of_close, rows_of, unpublished_row
from orchestrator.store.timers import Deadlines

log = logging.getLogger(__name__)

MAX_REFUSALS = 2
"""Of a run's turn in a row. Claims are anew each time, so it must not go on for ever."""

UNWRITABLE_S = 600.0
"""So long code is not entered whose turn was refused: somebody has to change the code or the log."""

NOTE_MS = 60_000
"""So often an owner notes in its store that it has kept up with history."""

MAX_WAIT_S = 20.0
"""A client that awaits a result repeats its command within this time."""


class Entry(msgspec.Struct, eq=False, gc=False):
    """A turn (or a position: ``draft`` None) in flight, and what happens once it is committed.

    The garbage collector does not look at it, nor at what else a turn carries on its way (``gc=False``): it
    is part of no cycle, and a thousand may be in flight.
    """

    marks: Marks
    sent_through: int
    rows: list[Row]
    draft: Draft | None = None
    outgoing: list[Outgoing] = []
    answers: list[Answer] = []
    publishes: bool = False


class Partition:
    """Everything that a coordinator knows of one partition."""

    def __init__(
        self,
        number: int,
        ownership: Ownership,
        store: PartitionStore,
        *,
        suspects: frozenset[str] = frozenset(),
        max_runs: int = MAX_RUNS_IN_MEMORY,
        retention_ms: int = DEFAULT_RETENTION_MS,
        watch: Watch | None = None,
    ) -> None:
        """``store`` stands where its checkpoint says; the code of the ids ``suspects`` is not entered."""
        self.number = number
        self.ownership = ownership
        self.store = store
        self.history = HistoryFold(store)
        self.suspects = suspects
        self._max_runs = max_runs
        self._retention_ms = retention_ms
        self._watch = watch
        self.poisoned: dict[str, str] = {}
        self.now_s = 0.0
        self.refused_turns: Counter[str] = Counter()
        self.unwritable: dict[str, tuple[float, str]] = {}
        self.fits_history = False
        """Whether the store was held against history."""
        self.publishing: Publishing | None = None
        """Set while the partition is owned."""
        self.refusals = Refusals(store)
        self.retries = Retries()
        self.chores: list[Row] = []
        self._reset()

    def _reset(self) -> None:
        checkpoint = self.store.checkpoint
        self.runs = Runs(self.store, limit=self._max_runs, watch=self._watch)
        self.deadlines = Deadlines(self.store)
        self.outflow = Outflow(checkpoint.sent_through)
        self.caution = Caution.none()
        self.cleaner = Cleaner(self.store, retention_ms=self._retention_ms)
        self.commands = CommandQueue(self.number, self.marks.commands)
        self.intake = Intake(self.number, self.marks.commands_tx)
        self.resumes: dict[str, None] = {}
        self.refused: list[RefusedDelivery] = []
        self.last_append_s = 0.0
        self._position_asked_s = float("-inf")
        self._written_marks = self.marks
        self.written_sent_through = checkpoint.sent_through
        self._requests: dict[tuple[str, str], Draft] = {}
        self._waiters: dict[str, list[tuple[float, AwaitResult]]] = {}

    def drop(self, dispatcher: Dispatcher) -> None:
        """Forget everything that runs ahead of the store."""
        self.runs.clear()
        dispatcher.drop_partition(self.number)
        if self.publishing is not None:
            self.publishing.end()
            self.publishing = None
        self._reset()

    def hold(self, record: Record) -> None:
        """A command leaves without having been decided: it is consumed when that is acknowledged."""
        self._held(record)[record.offset] = self.now_s

    def let_go(self, receipt: Receipt) -> None:
        """A command that was held has left."""
        record = receipt.forwarded or receipt.set_aside
        if record is not None:
            self._held(record).pop(record.offset, None)

    @property
    def overdue_s(self) -> float:
        """For how long the oldest of what leaves has waited for its acknowledgement."""
        since_s = [next(iter(held.values())) for held in (self.commands.held, self.intake.held) if held]
        return max([self.outflow.overdue_s(self.now_s), *[self.now_s - held_s for held_s in since_s]])

    def _held(self, record: Record) -> dict[int, float]:
        return self.intake.held if record.topic == COMMANDS_TX else self.commands.held

    def read_no_commands(self, log_: Log) -> None:
        """Nothing more is to be decided here."""
        self.commands.stop(log_)
        self.intake.stop(log_)

    @property
    def marks(self) -> Marks:
        """Below them, all commands are consumed, by records that were read back."""
        return self.history.marks

    @property
    def covered(self) -> set[int]:
        """Commands at or above the marks that turns have decided."""
        return self.history.covered

    @property
    def held_back(self) -> Mapping[str, str]:
        """Runs whose business events the log refuses, and why."""
        return self.publishing.held_back if self.publishing is not None else {}

    def rebuild(self) -> None:
        """The store is of no use: begin with an empty one, at the beginning of history."""
        self.store.wipe()
        self.history, self.refusals = HistoryFold(self.store), Refusals(self.store)
        self._reset()
        self.assign(self.ownership.generation)

    def assign(self, generation: int) -> None:
        """Begin to restore from the store's checkpoint."""
        self.ownership.assign(generation, self.history.validity, self.history.next_offset)

    # -------------------------------------------------------------------------------------- restore

    def fold(self, found: Iterable[Read]) -> int:
        """Apply records that were read, not decided, here; returns the newest time in them."""
        newest_ms = 0
        for item in found:
            if not isinstance(item, Found):
                self._clear(item)
                continue
            if not isinstance(item.record, Claim):
                newest_ms = max(newest_ms, item.record.time_ms)
            if dropped := self.history.add(item.record, item.offset):
                log.warning("partition %d: %s", self.number, dropped)
        self._flush()
        return newest_ms

    def _flush(self, rows: Sequence[Row] = ()) -> None:
        rows = [*rows, *self.chores, *self.refusals.take_rows()]
        self.history.flush(rows, next_offset=self.ownership.next_offset)
        self.chores = []

    def _clear(self, item: Void | Erased) -> None:
        if isinstance(item, Void):
            self.history.litter(item.offset, item.key)
        else:
            self.history.erase(item.key, item.offset)
            self.chores += self.cleaner.landed(item.key)

    def tidy(self, now_ms: int) -> list[bytes]:
        """Forget what has had its time; returns keys of history to send tombstones for."""
        tombstones, rows = self.cleaner.next(
            self.now_s, now_ms, position=self.history.position, left_behind=self.left_behind
        )
        self.chores += rows
        self.chores += self.refusals.forget(now_ms)
        if now_ms - self.history.caught_up_ms >= NOTE_MS:
            self.history.caught_up_ms = now_ms
            self._flush()
        elif self.chores:
            self._flush()
        return tombstones

    def wants_position(self, now_s: float, again_s: float) -> bool:
        """Whether closed runs are kept for want of a position that covers them; says so once in a while."""
        end = self.cleaner.held_back
        if end < 0 or end < self.history.covered_through or now_s < self._position_asked_s + again_s:
            return False
        self._position_asked_s = now_s
        return True

    def latest_state(self, workflow_id: str) -> RunState | None:
        """The latest run of an id, ahead of the store by what is in flight."""
        run = self.runs.get(workflow_id)
        return run.state if run is not None else None

    def left_behind(self, offset: int) -> bool:
        """Whether nothing needs the turns up to an offset of history any more.

        A position covers their commands, and everything that follows from them has left.
        """
        if offset >= self.history.covered_through or not self.outflow.has_sent(offset):
            return False
        unpublished = next(self.store.unpublished(), None)
        return unpublished is None or unpublished.offset > offset

    def own(self, claim: Claim, offset: int, dispatcher: Dispatcher) -> list[str]:
        """The claim came back: everything valid is in the store. Take stock of all open runs.

        Returns the ids of those that are blocked.
        """
        self.history.add(claim, offset)
        self._flush()
        self.history.forget()
        dispatcher.drop_partition(self.number)
        self._reset()
        self.retries.restock()
        blocked: list[str] = []
        for run_id in self.store.open_runs():
            state = self.store.state(run_id)
            if state is not None:
                self._take_stock(state, dispatcher)
                if state.blocked is not None:
                    blocked.append(run_id)
        return blocked

    def _take_stock(self, state: RunState, dispatcher: Dispatcher) -> None:
        for found in state.activities.values():
            ref = ActivityRef(self.number, state.workflow_id, state.run_id, found.activity_id)
            if found.phase is ActivityPhase.DISPATCHED:
                dispatcher.taken(ref, found.worker)
            elif found.phase is ActivityPhase.WAITING and not found.cancel_requested:
                scheduled = found.scheduled
                dispatcher.wait(ref, scheduled.task_queue, scheduled.priority, found.scheduled_time_ms)
        if state.blocked is not None:
            self.retries.still_blocked(state.run_id, state.workflow_id)
        elif state.deferred_from or activity.decide_settle(state):
            self.resumes[state.workflow_id] = None

    def outgoing_again(self, turn: Turn) -> list[Outgoing]:
        """What a committed turn sent and must send again: tasks of open attempts, and cancellations."""
        stored = self.store.turn(turn.run_id, turn.turn)
        state = self.store.state(turn.run_id)
        if stored is None or state is None or not outbox.has_outgoing(stored):
            return []
        if (stored.epoch, stored.seq) != (turn.epoch, turn.seq):
            return []
        return [
            out
            for out in outbox.outgoing(stored, state.workflow_type, self._scheduled_in(turn.run_id))
            if isinstance(out.task, CancelTask) or _is_open(state.activities.get(out.task.activity_id), out)
        ]

    def _scheduled_in(self, run_id: str) -> Callable[[int], tuple[ActivityScheduled, int]]:
        def find(event_id: int) -> tuple[ActivityScheduled, int]:
            found = self.store.scheduled(run_id, event_id)
            if found is None:
                raise LookupError(f"run {run_id} has no ActivityScheduled with event id {event_id}")
            return found

        return find

    # ------------------------------------------------------------------------------------- requests

    def note_refused(self, workflow_id: str, reason: str) -> None:
        """The log did not take a turn of an id. Once may be chance; the second time its run is blocked,
        without what its code did; if that is not taken either, its commands are set aside.
        """
        self.refused_turns[workflow_id] += 1
        if self.refused_turns[workflow_id] > MAX_REFUSALS:
            self.poisoned[workflow_id] = reason
        elif self.refused_turns[workflow_id] == MAX_REFUSALS:
            self.unwritable[workflow_id] = (self.now_s + UNWRITABLE_S, reason)

    def why_unwritable(self, workflow_id: str) -> str:
        """Why the log does not take what the code of an id does; "" if it may."""
        until_s, reason = self.unwritable.get(workflow_id, (0.0, ""))
        if reason and until_s <= self.now_s:
            del self.unwritable[workflow_id]
            return ""
        return reason

    def drafts_in_flight(self, run: Run) -> list[Draft]:
        """The turns of a run that are appended and not yet in the store, in order."""
        if not run.pinned:
            return []
        drafts = (entry.draft for entry in self.ownership.entries())
        return [draft for draft in drafts if draft is not None and draft.run is run]

    def request_in_flight(self, workflow_id: str, request_id: str) -> Draft | None:
        """The draft in flight that a request led to."""
        return self._requests.get((workflow_id, request_id))

    def note_request(self, workflow_id: str, request_id: str, draft: Draft) -> None:
        """A request led to a draft."""
        self._requests[workflow_id, request_id] = draft

    def await_result(self, run_id: str, command: AwaitResult) -> None:
        """Somebody waits for a run's close."""
        waiting = self._waiters.setdefault(run_id, [])
        waiting[:] = [
            entry for entry in waiting if entry[0] > self.now_s and entry[1].request_id != command.request_id
        ]
        waiting.append((self.now_s + MAX_WAIT_S, command))

    def waiters_of(self, run_id: str) -> list[AwaitResult]:
        """Who waited for a run that is closed now."""
        return [command for _, command in self._waiters.pop(run_id, ())]

    # ------------------------------------------------------------------------------------- deciding

    def idle(self, now_ms: int) -> bool:
        """Whether there is nothing to decide now."""
        if self.commands.waiting or self.resumes or self.refused or self.tries_blocked:
            return False
        return not self.deadlines.has_due(now_ms)

    def inputs(self, now_ms: int, limit: int) -> dict[str, list[Input]]:
        """What the engine itself has to do now, by workflow id: deadlines that came, runs to look at."""
        found: dict[str, list[Input]] = {}
        for due in self.deadlines.due(now_ms, limit):
            found.setdefault(due.workflow_id, []).append(Input(due.deadline, run_id=due.run_id))
        if self.tries_blocked:
            self.resumes[self.retries.take()] = None
        for refused in self.refused:
            task = refused.task
            found.setdefault(task.workflow_id, []).append(Input(refused, run_id=task.run_id))
        self.refused = []
        for workflow_id in self.resumes:
            found.setdefault(workflow_id, []).append(Input(Resume()))
        self.resumes = {}
        for workflow_id in self.poisoned:
            found.pop(workflow_id, None)
        return found

    @property
    def tries_blocked(self) -> bool:
        """Whether a blocked run is due. One per step: each may take as long as code that is evicted."""
        next_s = self.retries.next_s
        return next_s is not None and next_s <= self.now_s

    @property
    def _low_water(self) -> Marks:
        """Below them, every command was decided, or set aside or forwarded, which was acknowledged."""
        return Marks(commands=self.commands.mark, commands_tx=self.intake.mark)

    @property
    def moved(self) -> bool:
        """Whether more is consumed than history says."""
        low, written = self._low_water, self._written_marks
        return low.commands > written.commands or low.commands_tx > written.commands_tx

    def marks_of(self, made: Made) -> list[Marks]:
        """The low-water marks of each draft: below them, everything is covered by it or earlier ones."""
        whole = self._low_water
        low, commands_tx = whole.commands, whole.commands_tx
        marks = []
        last = len(made.drafts) - 1
        for place in range(last, -1, -1):
            marks.append(Marks(commands=low, commands_tx=commands_tx))
            draft = made.drafts[place]
            low = min([low, *draft.offsets])
            if place == last:
                low = min([low, *made.late])
        return marks[::-1]

    def seal(self, draft: Draft, marks: Marks) -> None:
        """Give a draft its place in the log and append it, in parts if it is large."""
        state, sent_through = draft.run.state, self.outflow.sent_through
        epoch, seq = self.ownership.header()
        whole = turn_of(draft, epoch=epoch, seq=seq, marks=marks, sent_through=sent_through)
        records, values = self._records(whole)
        turn = records[-1]
        if len(records) > 1:
            turn = msgspec.structs.replace(turn, events=whole.events, first_event_id=whole.first_event_id)
        entry = Entry(
            marks=marks,
            sent_through=sent_through,
            rows=rows_of(turn, draft.changes, state=draft.state, is_open=draft.is_open),
            draft=draft,
            outgoing=self._outgoing(turn, state) if outbox.has_outgoing(turn) else [],
            answers=draft.answers,
            publishes=outbox.has_publications(turn),
        )
        self._append(records, values, entry)

    def _append(self, records: list[Turn] | list[Position], values: list[bytes], entry: Entry) -> None:
        self.ownership.append(records, values, entry)
        self.last_append_s = self.now_s
        self._written_marks, self.written_sent_through = entry.marks, entry.sent_through

    def _outgoing(self, turn: Turn, state: RunState) -> list[Outgoing]:
        """From the state in memory, where it still holds what was scheduled; else from the store."""
        by_event = {
            found.scheduled_event_id: (found.scheduled, found.scheduled_time_ms)
            for dispatch in _dispatches(turn)
            if (found := state.activities.get(dispatch)) is not None
        }
        in_store = self._scheduled_in(turn.run_id)
        return outbox.outgoing(
            turn, state.workflow_type, lambda event_id: by_event.get(event_id) or in_store(event_id)
        )

    def _records(self, whole: Turn) -> tuple[list[Turn], list[bytes]]:
        value = avro.encode(whole)
        if len(value) <= MAX_PART_BYTES:
            return [whole], [value]
        records: list[Turn] = []
        first = 0
        sizes = [len(avro.encode(msgspec.structs.replace(whole, events=(event,)))) for event in whole.events]
        epoch, seq = whole.epoch, whole.seq
        while first < len(sizes):
            last, size = first, 0
            while last < len(sizes) and (last == first or size + sizes[last] <= MAX_PART_BYTES):
                size += sizes[last]
                last += 1
            if records:
                epoch, seq = self.ownership.header()
            records.append(
                msgspec.structs.replace(
                    whole,
                    epoch=epoch,
                    seq=seq,
                    first_event_id=whole.first_event_id + first,
                    events=whole.events[first:last],
                    causes=whole.causes if last == len(sizes) else (),
                    part=len(records),
                    parts=len(records) + 1 if last == len(sizes) else 0,
                )
            )
            first = last
        return records, [avro.encode(record) for record in records]

    def write_position(self, time_ms: int, answers: Sequence[Answer] = (), *, trying: str = "") -> None:
        """Note what was consumed or sent without a turn, or whose code is entered next."""
        epoch, seq = self.ownership.header()
        marks, sent_through = self._low_water, self.outflow.sent_through
        position = Position(
            epoch=epoch, seq=seq, marks=marks, sent_through=sent_through, time_ms=time_ms, trying=trying
        )
        entry = Entry(marks=marks, sent_through=sent_through, rows=[], answers=list(answers))
        self._append([position], [avro.encode(position)], entry)

    # ------------------------------------------------------------------------------------ read back

    def apply(self, committed: Sequence[Committed | Void | Erased]) -> list[tuple[Entry, int]]:
        """Records came back: write them to the store, with the checkpoint, in one batch.

        Returns the entries that are complete now, with their offsets.
        """
        rows: list[Row] = []
        entries: list[tuple[Entry, int]] = []
        for back in committed:
            if not isinstance(back, Committed):
                self._clear(back)
                continue
            entry: Entry | None = back.entry
            if entry is None:
                assert isinstance(back.record, Turn)
                self.history.parts.add(back.record)
                continue
            self.history.parts.drop()
            entries.append((entry, back.offset))
            rows.extend(entry.rows)
            self.history.trials = self.history.trials.after(back.record)
            if isinstance(back.record, Position):
                self.history.add_position(back.record, back.offset)
                if workflow_id := self.caution.begin(back.record.trying):
                    self.resumes[workflow_id] = None
            draft = entry.draft
            if draft is not None and not draft.is_open:
                rows.append(row_of_close(draft.run.state, back.offset))
            if draft is not None and draft.glance is not None:
                assert isinstance(back.record, Turn)
                self.history.note(draft.glance, back.record, back.offset)
            offsets = draft.offsets if draft is not None else ()
            self.history.advance(entry.marks, self.outflow.sent_through, offsets)
            if entry.draft is not None and entry.publishes:
                rows.append(self._unpublished(entry.draft, back.offset))
        self._flush(rows)
        for entry, _ in entries:
            if entry.draft is not None:
                self._settle(entry.draft)
        return entries

    def _unpublished(self, draft: Draft, offset: int) -> Row:
        if self.publishing is not None:
            self.publishing.note()
        state = draft.run.state
        return unpublished_row(offset, state.run_id, draft.turn, state.workflow_type)

    def _settle(self, draft: Draft) -> None:
        run = draft.run
        state = run.state
        run.in_flight -= 1
        if self.refused_turns:
            self.refused_turns.pop(state.workflow_id, None)
        for receipt in draft.settled:
            self.outflow.settle(receipt)
        self.deadlines.commit(state.workflow_id, state.run_id, draft.changes)
        for cause in draft.causes:
            self._requests.pop((state.workflow_id, cause.request_id), None)
        if not state.is_open and not run.pinned:
            self.runs.release(run)


def _dispatches(turn: Turn) -> list[int]:
    return [dispatch.activity_id for event in turn.events for dispatch in getattr(event, "dispatches", ())]


def _is_open(found: ActivityState | None, out: Outgoing) -> bool:
    return (
        found is not None
        and found.phase is ActivityPhase.DISPATCHED
        and (found.attempt, found.dispatch) == (out.task.attempt, out.task.dispatch)
    )
