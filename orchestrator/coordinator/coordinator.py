"""The write side: one synchronous loop over many partitions.

A step::

    1  poll            records, deliveries and changes of membership
    2  read back       own turns that came back are committed: apply them to the store, in one batch
    3  release         what follows from committed turns leaves: tasks, answers, business events
    4  own             restore and claim partitions, a slice each, so that the others go on
    5  decide          deadlines that came and commands become turns; waiting activities find workers
    6  append          turns are under way; deciding does not wait for them

A crash between any two of them loses nothing: what was not appended is decided again by the next owner,
what was appended counts if it lies before the next claim, what was committed and not sent is sent again.
See ``runtime.STEP_POINTS``.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.codec import avro
from orchestrator.coordinator.caution import Caution
from orchestrator.coordinator.clock_check import MAX_SKEW_MS
from orchestrator.coordinator.dispatch import ActivityRef, Dispatcher
from orchestrator.coordinator.drafts import (
    DispatchOrder,
    Input,
    Made,
    RefusedDelivery,
)
from orchestrator.coordinator.meter import Meter, Unmetered
from orchestrator.coordinator.outflow import Outflow, Receipt
from orchestrator.coordinator.ownership import ACK_DEADLINE_S, Ownership, Phase, is_claim
from orchestrator.coordinator.partition import Entry, Partition
from orchestrator.coordinator.publishing import Publishing
from orchestrator.coordinator.pulse import BEAT, Pulse, first_beat
from orchestrator.coordinator.reception import Reception
from orchestrator.coordinator.replies import answers, result_reply
from orchestrator.coordinator.retention import DEFAULT_RETENTION_MS
from orchestrator.coordinator.runs import MAX_RUNS_IN_MEMORY, Definitions
from orchestrator.coordinator.runtime import EngineClock, Runtime, new_id
from orchestrator.coordinator.sender import Sender
from orchestrator.coordinator.turn import TurnMaker
from orchestrator.coordinator.verdicts import Committed, Erased, Found, Lost, Owned, Verdict, Void
from orchestrator.coordinator.watchdog import Abandoned, Unwatched, Watchdog
from orchestrator.errors import Unavailable
from orchestrator.log.port import Change, Delivery, Log, Membership, Outcome, Record
from orchestrator.log.schemas import Schemas
from orchestrator.log.topics import (
    COMMANDS,
    COMMANDS_TX,
    HISTORY,
    META,
    WORKERS,
)
from orchestrator.protocol.records import Turn
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.store.fold import MAX_AWAY_MS
from orchestrator.store.partition_store import PartitionStore
from orchestrator.telemetry.traces import Traces, Untraced

log = logging.getLogger(__name__)

MAX_DISPATCHES_PER_STEP = 2_000
MAX_DEADLINES_PER_STEP = 1_000
"""Of one partition: they bound the length of a step, and so the latency of the others."""

TIDY_S = (0.05, 1.0)
"""What nobody waits for is done so often, a little at a time; while there is none, it is looked for."""

POSITION_TO_TIDY_S = 60.0
"""Closed runs are kept until a position covers them. A busy partition, which writes none, writes one then."""

POSITION_AFTER_S = 1.0
"""A position is written when nothing was appended for so long, so that a busy partition writes none."""

MAX_PAUSE_S = 5.0
"""A process that was paused for longer claims its partitions anew: others may have."""

DELETE_EVERY = 10_000
"""Commands consumed before the log is told that it may let go of them."""

CLOSE_WAIT_S = 5.0
"""For what is being published when the process ends: longer than a transaction takes."""

MAX_POLL_S = 1.0
"""A beat is due by then at the latest: a step is made at least so often, whatever the clocks say."""

_Work = tuple[Partition, dict[str, list[Input]], Made]
"""A partition's share of a step: inputs by workflow id, and what they led to."""


class Coordinator:
    """One member of the group of coordinators. All methods but :meth:`stop` belong to one thread."""

    def __init__(
        self,
        log_: Log,
        folder: Path,
        definitions: Definitions,
        runtime: Runtime,
        *,
        log_id: str,
        identity: str = "",
        workers_end_with_log: bool = False,
        watch: Watchdog | Unwatched | None = None,
        open_store: Callable[[int], PartitionStore] | None = None,
        suspects: Iterable[str] = (),
        max_runs_in_memory: int = MAX_RUNS_IN_MEMORY,
        retention_ms: int = DEFAULT_RETENTION_MS,
        meter: Meter | None = None,
        traces: Traces | None = None,
    ) -> None:
        """Join nothing yet.

        Args:
            log_: this member's side of the log.
            folder: holds a store per partition; may be empty or damaged.
            definitions: the workflow types that this process can run, by name.
            runtime: clock and chance.
            log_id: names the log's content; a store of another log is rebuilt.
            identity: who this is, for people.
            workers_end_with_log: no worker outlives the log's process (embedded): at a start, all
                earlier incarnations are lost.
            watch: the watchdog of user code; default none.
            open_store: opens the store of a partition, if not ``folder/partition``.
            max_runs_in_memory: per partition; others are made again by a replay when they are woken.
            retention_ms: closed runs leave history and the store so long after their close.
            suspects: workflow ids whose code is not to be entered, for a predecessor got stuck in it.
            meter, traces: are told what happens, and of runs; default nobody.
        """
        self.incarnation = new_id(runtime)
        self.stopping = False
        self.partitions: dict[int, Partition] = {}
        self._log, self._runtime, self._folder = log_, runtime, folder
        self._log_id, self._workers_end_with_log = log_id, workers_end_with_log
        self._open_store = open_store or self._store_in_folder
        self._watch = watch if watch is not None else Unwatched()
        self._suspects = frozenset(suspects)
        self._meter, self._traces = meter or Unmetered(), traces or Untraced()
        self._max_runs, self._retention_ms = max_runs_in_memory, retention_ms
        self._clock = EngineClock(runtime)
        self._dispatcher = Dispatcher(self.incarnation)
        self._maker = TurnMaker(
            definitions, self._dispatcher, runtime, self._watch, log_.refusal_of_topic, traces=self._traces
        )
        self._schemas = Schemas()
        self._sender = Sender(log_, self._meter)
        self._reception = Reception(log_, self._sender, self._dispatcher, runtime, self._meter)
        me = first_beat(self.incarnation, identity, definitions)
        self._pulse = Pulse(me, self._sender, self._dispatcher, runtime, self._clock, meter=self._meter)
        self._joined = True
        self._next_tidy_s = 0.0
        self._seen_s, self._paused_s = runtime.monotonic_s(), 0.0
        self._deleted: dict[tuple[str, int], int] = {}

    def _store_in_folder(self, number: int) -> PartitionStore:
        return PartitionStore(self._folder / f"{number:05d}", log_id=self._log_id)

    # ----------------------------------------------------------------------------------------- loop

    def run(self) -> None:
        """Step until :meth:`stop`; then leave in order. An abandoned thread leaves everything as it is."""
        try:
            self._start_once_it_answers()
            while not self.stopping:
                self.step(self.wait_s())
        except Abandoned:
            raise
        except BaseException:
            self.close()
            raise
        self.finish()

    def _start_once_it_answers(self) -> None:
        while not self.stopping:
            try:
                self.start()
                break
            except Unavailable as error:
                log.warning("the log is waited for: %s", error)
                self._log.poll(MAX_POLL_S)

    def start(self) -> None:
        """Join the group, able to read what newer versions wrote.

        Raises:
            Unavailable: the log does not answer. Nothing was written: do it again.
        """
        self._log.seek(WORKERS, 0, self._log.end(WORKERS, 0))
        self._schemas.follow(self._log)
        for key, schema in self._schemas.ours():
            self._sender.publish_schema(key, schema)
        self._log.join()

    @property
    def silent_s(self) -> float:
        """For how long the loop has not got on. For any thread."""
        return self._runtime.monotonic_s() - self._seen_s

    @property
    def owns_all(self) -> bool:
        """Whether every partition that was assigned is claimed and restored. For any thread."""
        return self._joined and all(found.ownership.running for found in list(self.partitions.values()))

    def stop(self) -> None:
        """End the loop soon; may be called from any thread."""
        self.stopping = True
        self._log.wake()

    def finish(self) -> None:
        """Between two steps: leave the group, and close.

        What was decided is read back and answered before, if the log takes it within a second.
        """
        self.leave()
        while not self.left:
            self.step(self.wait_s())
        self.close()

    def leave(self) -> None:
        """Leave the group; go on with steps until :attr:`left`.

        A position says how far this owner has come, for it did not die of what follows.
        """
        now_ms = self._clock.now_ms()
        for partition in self.partitions.values():
            if partition.ownership.running and (partition.moved or partition.caution.announced()):
                partition.write_position(now_ms)
        self._log.leave()
        self.step()

    @property
    def left(self) -> bool:
        """Whether nothing more is awaited of partitions that go to others."""
        return not any(found.ownership.phase is Phase.LEAVING for found in self.partitions.values())

    def close(self) -> None:
        """Tell the others, and close the stores. What is under way may still land, and counts."""
        self._pulse.beat(self.partitions.values(), stopped=True)
        self._log.poll(0)
        self._watch.stop()
        for partition in self.partitions.values():
            partition.ownership.revoke()
            if partition.publishing is not None:
                partition.publishing.end(CLOSE_WAIT_S)
            partition.runs.clear()
            partition.store.close()
        self.partitions.clear()
        self._log.close()

    def abandon(self) -> None:
        """This coordinator's thread is stuck, and another one takes its place: end the threads beside it."""
        for partition in self.partitions.values():
            if partition.publishing is not None:
                partition.publishing.end()

    def wait_s(self) -> float:
        """How long the next poll may wait."""
        now_s, now_ms = self._runtime.monotonic_s(), self._clock.now_ms()
        wait_s = min(MAX_POLL_S, max(0.0, min(self._pulse.due_s, self._next_tidy_s) - now_s))
        for partition in self.partitions.values():
            if partition.ownership.phase is Phase.RESTORING:
                return 0.0
            if not partition.ownership.running:
                wait_s = min(wait_s, 0.1)
                continue
            if partition.resumes:
                return 0.0
            if partition.commands.waiting and not partition.ownership.saturated:
                return 0.0
            next_ms = partition.deadlines.next_ms()
            if next_ms is not None:
                wait_s = min(wait_s, max(0.0, (next_ms - now_ms) / 1_000))
            next_s = partition.retries.next_s
            if next_s is not None:
                wait_s = min(wait_s, max(0.0, next_s - now_s))
        return wait_s

    def step(self, timeout_s: float = 0.0) -> None:
        """One turn of the loop; see the module's docstring."""
        polled = self._log.poll(timeout_s)
        self._runtime.at("polled")
        self._look_at_clock(timeout_s)
        for membership in polled.memberships:
            self._on_membership(membership)
        for delivery in polled.deliveries:
            self._on_delivery(delivery)
        self._read_back(polled.records)
        self._own()
        self._publish()
        self._decide()
        self._pulse.beat_if_due(self.partitions.values())
        self._tidy_if_due()

    # -------------------------------------------------------------------------------- clock, members

    def _look_at_clock(self, timeout_s: float) -> None:
        self._note_time(waited_s=timeout_s)
        now_s, paused_s, self._paused_s = self._seen_s, self._paused_s, 0.0
        if paused_s > MAX_PAUSE_S:
            log.warning("this process was paused for %.1f s: all partitions are claimed anew", paused_s)
        for partition in list(self.partitions.values()):
            partition.now_s = now_s
            if paused_s > MAX_PAUSE_S:
                self._incident(partition, f"paused for {paused_s:.1f} s")

    def _note_time(self, *, waited_s: float = 0.0) -> None:
        """This process runs. How long it did not, as far as it had no reason to be elsewhere."""
        now_s = self._runtime.monotonic_s()
        self._paused_s = max(self._paused_s, now_s - self._seen_s - waited_s)
        self._seen_s = now_s

    def _on_membership(self, membership: Membership) -> None:
        number = membership.partition
        partition = self.partitions.get(number)
        if membership.change is not Change.ASSIGNED:
            if partition is not None:
                self._give_up(partition, membership.change)
            return
        if partition is not None and partition.ownership.phase is Phase.LEAVING:
            self._let_go(partition)
            partition = None
        if partition is None:
            ownership = Ownership(number, self._log, self._runtime, self.incarnation)
            store = self._open_store(number)
            partition = Partition(
                number,
                ownership,
                store,
                suspects=self._suspects,
                max_runs=self._max_runs,
                retention_ms=self._retention_ms,
                watch=self._watch,
            )
            partition.now_s = self._runtime.monotonic_s()
            self.partitions[number] = partition
            partition.assign(membership.generation)
        else:
            partition.ownership.generation = membership.generation

    def _give_up(self, partition: Partition, change: Change) -> None:
        """The group has another owner in mind. If there is time for it, what is under way is awaited."""
        partition.read_no_commands(self._log)
        if change is Change.LOST or not partition.ownership.retire():
            self._let_go(partition)

    def _let_go(self, partition: Partition) -> None:
        """The partition is another's. What is still under way counts if it lands before the other's claim."""
        self._meter.gave_up(partition.number, incident=False)
        partition.ownership.revoke()
        partition.drop(self._dispatcher)
        partition.read_no_commands(self._log)
        partition.store.close()
        del self.partitions[partition.number]

    def _on_delivery(self, delivery: Delivery) -> None:
        token = delivery.token
        if token is None:
            return
        if token is BEAT:
            self._pulse.answered()
            return
        partition = self.partitions.get(token.partition)
        if partition is None:
            return
        if not isinstance(token, Receipt):
            lost = partition.ownership.on_delivery(delivery)
            if lost is not None:
                if lost.refused is not None:
                    partition.note_refused(lost.refused.workflow_id, lost.reason)
                self._incident(partition, lost.reason)
            return
        if token.nonce != partition.ownership.nonce:
            return
        if delivery.outcome is Outcome.UNKNOWN:
            self._incident(partition, f"an outgoing record may not have left: {delivery.error}")
            return
        if delivery.outcome is Outcome.REFUSED:
            self._on_refused(partition, token, delivery.error)
        elif token.task is None:
            partition.let_go(token)
        else:
            partition.outflow.settle(token)
            self._dispatcher.dispatched(token.task.worker, delivery.offset)

    def _on_refused(self, partition: Partition, receipt: Receipt, error: str) -> None:
        """A record was refused for good. It fails alone: the attempt, or the command, and nothing else."""
        log.error("partition %d: an outgoing record was refused: %s", partition.number, error)
        if isinstance(receipt.task, ActivityTask):
            partition.refused.append(RefusedDelivery(receipt.task, error, receipt))
        elif receipt.task is not None:
            partition.outflow.settle(receipt)
        elif receipt.forwarded is not None:
            self._sender.set_aside(receipt.forwarded, f"it cannot be forwarded: {error}", partition)
        else:
            partition.let_go(receipt)

    def _incident(self, partition: Partition, reason: str) -> None:
        """Anything unexpected has one treatment: claim anew, forget what was decided, rebuild."""
        if partition.ownership.phase is Phase.LEAVING:
            self._let_go(partition)
            return
        log.warning("partition %d is claimed anew: %s", partition.number, reason)
        self._meter.gave_up(partition.number, incident=True)
        partition.read_no_commands(self._log)
        partition.drop(self._dispatcher)
        partition.ownership.incident()

    # ------------------------------------------------------------------------------------ read back

    def _read_back(self, records: list[Record]) -> None:
        committed: dict[int, list[Committed | Void | Erased]] = {}
        for record in records:
            partition = self.partitions.get(record.partition)
            if record.topic == WORKERS:
                self._on_beat(record)
            elif record.topic == META:
                self._schemas.take(record)
            elif partition is None:
                continue
            elif record.topic == COMMANDS:
                partition.commands.put(record, partition.marks.commands, partition.covered)
            elif record.topic == COMMANDS_TX:
                self._reception.take_transactional(partition, record)
            elif record.topic == HISTORY:
                verdict = partition.ownership.on_record(record)
                self._on_verdict(partition, verdict, committed)
        if committed:
            self._runtime.at("read-back")
            applied = [
                (self.partitions[number], self.partitions[number].apply(back))
                for number, back in committed.items()
            ]
            self._runtime.at("applied")
            now_ms = self._clock.now_ms()
            for partition, entries in applied:
                self._tell(partition, entries, now_ms)
                self._release(partition, entries)
            self._runtime.at("released")

    def _on_verdict(
        self,
        partition: Partition,
        verdict: Verdict | None,
        committed: dict[int, list[Committed | Void | Erased]],
    ) -> None:
        follows = partition.ownership.follows
        if isinstance(verdict, Void):
            self._meter.found_void()
        if isinstance(verdict, Committed) or (follows and isinstance(verdict, Void | Erased)):
            committed.setdefault(partition.number, []).append(verdict)
        elif isinstance(verdict, Found | Void | Erased):
            self._clock.observe(partition.fold([verdict]))
        elif isinstance(verdict, Owned):
            try:
                self._on_owned(partition, verdict)
            except Unavailable as error:
                self._incident(partition, f"what may not have left cannot be read: {error}")
        elif isinstance(verdict, Lost):
            entries = partition.apply(committed.pop(partition.number, []))
            self._tell(partition, entries, self._clock.now_ms())
            if partition.ownership.phase is Phase.LEAVING:  # who stays claims anew, and sends it again
                self._release(partition, entries)
            if verdict.found is not None:
                partition.fold([verdict.found])
            self._incident(partition, verdict.reason)

    def _tell(self, partition: Partition, entries: list[tuple[Entry, int]], now_ms: int) -> None:
        """Whoever watches. After a death here nobody is told: a span that is missing, but none that is there
        twice.
        """
        self._meter.committed(partition.number, entries, now_ms)
        for entry, _ in entries:
            if entry.draft is not None and not entry.draft.is_open:
                self._traces.run_closed(entry.draft.run.state)

    def _release(self, partition: Partition, entries: list[tuple[Entry, int]]) -> None:
        for entry, offset in entries:
            if entry.outgoing:
                self._sender.send(partition, offset, entry.outgoing)
            for answer in entry.answers:
                self._sender.answer(partition, answer, offset)
            draft = entry.draft
            if draft is not None and not draft.is_open:
                state = draft.run.state
                for command in partition.waiters_of(state.run_id):
                    reply = result_reply(state.run_id, state.status, state.close)
                    for answer in answers(command, reply):
                        self._sender.answer(partition, answer, offset)

    def _publish(self) -> None:
        """Feed the publishers. Who waits in vain for a topic is told so, and when the wait is over."""
        for partition in self.partitions.values():
            if partition.publishing is not None:
                for workflow_id in partition.publishing.tick():
                    partition.resumes[workflow_id] = None

    # -------------------------------------------------------------------------------------- own

    def _own(self) -> None:
        now_ms = self._clock.now_ms()
        answers = True
        for partition in list(self.partitions.values()):
            if partition.ownership.left:
                self._let_go(partition)
            # A log that is away is asked once per step, for each question takes seconds.
            elif partition.ownership.phase is Phase.RESTORING:
                answers = answers and self._restore(partition)
            elif partition.ownership.wants_proof:
                answers = answers and partition.ownership.prove()
            elif (lost := partition.ownership.tick()) is not None:
                self._incident(partition, lost.reason)
            elif partition.ownership.stale and (self._dispatcher.has_backlog or not partition.idle(now_ms)):
                self._incident(partition, "nothing was appended for long")
            elif partition.overdue_s > ACK_DEADLINE_S:
                self._incident(partition, "outgoing records were not acknowledged in time")

    def _restore(self, partition: Partition) -> bool:
        """Restore a slice; whether the log answered."""
        try:
            if not partition.fits_history:
                if reason := self._why_rebuild(partition):
                    log.warning("partition %d is rebuilt from history: %s", partition.number, reason)
                    partition.rebuild()
                partition.fits_history = True
            self._clock.observe(partition.fold(partition.ownership.restore_slice()))
        except Unavailable as error:
            log.warning("partition %d waits to be restored: %s", partition.number, error)
            return False
        return True

    def _why_rebuild(self, partition: Partition) -> str:
        """Why the store does not fit this history; "" if it does."""
        found = partition.store.checkpoint
        end = self._log.end(HISTORY, partition.number)
        if found.offset > end:
            return f"history ends at {end}, and the store has seen {found.offset} records of it"
        if found.claim_offset >= 0:
            records = self._log.read(HISTORY, partition.number, found.claim_offset, 1)
            if not records or not is_claim(records[0], found.claim_offset, found.nonce):
                return f"it has another record at {found.claim_offset} than the store's last claim"
        away_ms = self._runtime.wall_ms() - found.caught_up_ms
        if found.caught_up_ms and found.offset < end and away_ms > MAX_AWAY_MS:
            return f"the store was not kept for {away_ms // 3_600_000} h, and tombstones may be missed"
        return ""

    def _on_owned(self, partition: Partition, owned: Owned) -> None:
        """The claim is read back: rebuild what is in memory, send again what may not have left."""
        blocked = partition.own(owned.claim, owned.offset, self._dispatcher)
        self._meter.owned(partition.number, blocked)
        partition.caution = Caution(
            partition.history.trials,
            now_s=self._runtime.monotonic_s(),
            commands_end=self._log.end(COMMANDS, partition.number),
            is_gone=self._is_gone,
        )
        partition.publishing = Publishing(partition.number, partition.store, self._log, self._runtime)
        self._runtime.at("owned")
        first = partition.outflow.sent_through + 1
        partition.outflow = Outflow(partition.outflow.sent_through)
        for turn_offset, turn in self._turns_between(partition.number, first, owned.offset):
            outgoing = partition.outgoing_again(turn)
            if outgoing:
                self._sender.send(partition, turn_offset, outgoing)
        partition.commands.follow(self._log)
        partition.intake.pace(self._log)
        partition.last_append_s = self._runtime.monotonic_s()
        if self._workers_end_with_log:
            self._reception.lose_workers(partition, unseen=True)

    def _is_gone(self, owner: str) -> bool:
        """Whether an earlier owner has died. Where nobody outlives the log's process, all have."""
        return owner != self.incarnation and (self._workers_end_with_log or self._dispatcher.is_gone(owner))

    def _turns_between(self, number: int, first: int, end: int) -> Iterable[tuple[int, Turn]]:
        while first < end:
            records = self._log.read(HISTORY, number, first, 500)
            if not records:
                return
            for record in records:
                first = record.offset + 1
                if record.offset < end and record.value is not None:
                    decoded = avro.decode(record.value)
                    if isinstance(decoded, Turn) and decoded.parts:
                        yield record.offset, decoded

    # ---------------------------------------------------------------------------------------- beats

    def _on_beat(self, record: Record) -> None:
        if not self._pulse.hear(record):
            return
        self._mind_clock()
        for partition in self.partitions.values():
            if partition.ownership.running:
                self._reception.lose_workers(partition, unseen=False)

    def _mind_clock(self) -> None:
        """Who cannot tell the time leaves the group, and comes back when it can."""
        check = self._pulse.clock_check
        if check.trusted == self._joined:
            return
        self._joined = check.trusted
        if self._joined:
            log.warning("the clock of this machine is right again: this coordinator goes on")
            self._log.join()
            return
        skew_s = check.skew_ms / 1_000
        log.error(
            "the clock of this machine is %.1f s %s the log's, at most %.0f s are allowed: this coordinator "
            "decides nothing until it is right; synchronize the clocks of this machine and of the brokers",
            abs(skew_s),
            "ahead of" if skew_s > 0 else "behind",
            MAX_SKEW_MS / 1_000,
        )
        self._log.leave()

    def _tidy_if_due(self) -> None:
        """What no command waits for: forget what has had its time, in the store and in history."""
        now_s = self._runtime.monotonic_s()
        if now_s < self._next_tidy_s:
            return
        now_ms, busy = self._clock.now_ms(), False
        for partition in self.partitions.values():
            if not partition.ownership.running or partition.ownership.saturated:
                continue
            tombstones = partition.tidy(now_ms)
            busy = busy or bool(tombstones)
            for key in tombstones:
                self._sender.erase(partition.number, key)
            if partition.wants_position(now_s, POSITION_TO_TIDY_S):
                partition.write_position(now_ms)
        self._next_tidy_s = now_s + TIDY_S[0 if busy else 1]
        self._delete_consumed()

    def _delete_consumed(self) -> None:
        """Let the log forget commands that were decided: one partition's at a time, for it may take long."""
        for partition in self.partitions.values():
            marks = partition.marks
            for topic, mark in ((COMMANDS, marks.commands), (COMMANDS_TX, marks.commands_tx)):
                place = (topic, partition.number)
                if partition.ownership.running and mark - self._deleted.get(place, 0) >= DELETE_EVERY:
                    self._deleted[place] = mark
                    self._log.delete_records(*place, mark)
                    return

    # --------------------------------------------------------------------------------------- decide

    def _decide(self) -> None:
        """Make the turns of all partitions that run, let waiting activities find workers, append."""
        now_ms = self._clock.now_ms()
        work: list[_Work] = []
        for partition in self.partitions.values():
            if not partition.ownership.running or partition.ownership.saturated or partition.idle(now_ms):
                continue
            inputs = partition.inputs(now_ms, MAX_DEADLINES_PER_STEP)
            self._meter.came(inputs, now_ms)
            made = Made()
            if self._reception.take(partition, inputs, made, now_ms) or inputs:
                work.append((partition, inputs, made))
        if work:
            self._make_turns(work, now_ms)
        made_by = {partition.number: made for partition, _, made in work}
        if self._dispatcher.has_backlog:
            self._dispatch_waiting(made_by, now_ms)
        if made_by:
            self._runtime.at("decided")
        for number, made in made_by.items():
            self._append(self.partitions[number], made, now_ms)
        if made_by:
            self._runtime.at("appended")
        for partition in self.partitions.values():
            if partition.ownership.running:
                partition.commands.pace(self._log)
                partition.intake.pace(self._log)
                self._try_next(partition, now_ms)
                self._write_position_if_idle(partition, now_ms)

    def _try_next(self, partition: Partition, now_ms: int) -> None:
        """Announce whose code is tried next; it is entered when that is read back."""
        caution = partition.caution
        for workflow_id in caution.step_ended(partition.resumes, partition.marks.commands, partition.now_s):
            partition.resumes[workflow_id] = None
        found = caution.next(partition.latest_state)
        if found is None:
            return
        run_id, workflow_id = found
        if caution.announced() == run_id:
            partition.write_position(now_ms, trying=run_id)
        else:
            partition.resumes[workflow_id] = None

    def _make_turns(self, work: list[_Work], now_ms: int) -> None:
        """Make the turns of a batch; leaves in ``work`` what can be used of it."""
        for partition, inputs, made in work:
            for workflow_id, given in inputs.items():
                if not self._make(partition, workflow_id, given, now_ms, made):
                    break
        work[:] = [item for item in work if item[0].ownership.running]
        for partition, inputs, made in work:
            self._account(partition, made)
            partition.runs.tidy(inputs)

    def _make(
        self, partition: Partition, workflow_id: str, given: list[Input], now_ms: int, made: Made
    ) -> bool:
        """Make the turns of one id; whether that went well."""
        evicted = made.evicted
        try:
            self._maker.make(partition, workflow_id, given, now_ms, made)
        except Exception:
            self._poison(partition, workflow_id)
            return False
        if made.evicted != evicted:  # code that spins is no pause of the process
            self._seen_s = self._runtime.monotonic_s()
        return True

    def _poison(self, partition: Partition, workflow_id: str) -> None:
        """The engine's own code failed on an id: set its commands aside, and let the others go on."""
        trace = traceback.format_exc()
        log.error("partition %d: workflow %r is set aside: %s", partition.number, workflow_id, trace)
        partition.poisoned[workflow_id] = trace
        self._incident(partition, f"the engine failed on workflow {workflow_id!r}")

    def _account(self, partition: Partition, made: Made) -> None:
        """Slots that are free again, activities that wait, and what else drafts changed."""
        for draft in made.drafts:
            state = draft.run.state
            for worker, activity_id in draft.changes.freed:
                ref = ActivityRef(partition.number, state.workflow_id, state.run_id, activity_id)
                self._dispatcher.freed(ref, worker)
            for activity_id in draft.changes.gone:
                self._dispatcher.gone(
                    ActivityRef(partition.number, state.workflow_id, state.run_id, activity_id)
                )
        for ref, task_queue, priority, since_ms in made.waiting:
            self._dispatcher.wait(ref, task_queue, priority, since_ms)
        for run_id, command in made.waiters:
            partition.await_result(run_id, command)
        for receipt in made.settled:
            partition.outflow.settle(receipt)
        for workflow_id in made.replaying:
            partition.resumes[workflow_id] = None
        for warned in made.warnings:
            ids = {"workflow_id": warned.workflow_id, "run_id": warned.run_id}
            log.warning("%s", warned.message, extra=ids)

    def _dispatch_waiting(self, made_by: dict[int, Made], now_ms: int) -> None:
        running = [number for number, found in self.partitions.items() if found.ownership.running]
        orders: dict[tuple[int, str, str], list[tuple[int, str, int]]] = {}
        for ref, worker, inbox in self._dispatcher.assign(running, MAX_DISPATCHES_PER_STEP):
            wanted = orders.setdefault((ref.partition, ref.workflow_id, ref.run_id), [])
            wanted.append((ref.activity_id, worker, inbox))
        ordered: dict[int, Made] = {}
        for (number, workflow_id, run_id), wanted in orders.items():
            made = ordered.setdefault(number, Made())
            order = Input(DispatchOrder(tuple(wanted)), run_id=run_id)
            if self.partitions[number].ownership.running:
                self._make(self.partitions[number], workflow_id, [order], now_ms, made)
        for number, made in ordered.items():
            if self.partitions[number].ownership.running:
                self._account(self.partitions[number], made)
                made_by.setdefault(number, Made()).drafts.extend(made.drafts)
            else:
                made_by.pop(number, None)

    def _append(self, partition: Partition, made: Made, now_ms: int) -> None:
        """Append the drafts of a step; answers that wait for something get it here."""
        marks = partition.marks_of(made)
        for draft, mark in zip(made.drafts, marks, strict=True):
            try:
                partition.seal(draft, mark)
            except Exception:
                self._poison(partition, draft.run.state.workflow_id)
                return
        if made.covered:
            if made.drafts:
                partition.ownership.last_entry().answers.extend(made.covered)
            else:
                partition.write_position(now_ms, made.covered)
        if made.live:
            entry: Entry | None = partition.ownership.last_entry()
            if entry is not None:
                entry.answers.extend(made.live)
            else:
                for answer in made.live:
                    self._sender.answer(partition, answer, partition.ownership.next_offset - 1)

    def _write_position_if_idle(self, partition: Partition, now_ms: int) -> None:
        if partition.now_s - partition.last_append_s < POSITION_AFTER_S or partition.ownership.in_flight:
            return
        if partition.moved or partition.outflow.sent_through > partition.written_sent_through:
            partition.write_position(now_ms)
