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

import msgspec

from orchestrator.codec import avro
from orchestrator.coordinator.caution import Caution
from orchestrator.coordinator.clock_check import MAX_SKEW_MS, ClockCheck
from orchestrator.coordinator.dispatch import ActivityRef, Dispatcher
from orchestrator.coordinator.drafts import (
    Answer,
    DispatchOrder,
    Input,
    LoseWorker,
    Made,
    RefusedDelivery,
)
from orchestrator.coordinator.meter import Meter, Unmetered
from orchestrator.coordinator.outflow import Outflow, Receipt
from orchestrator.coordinator.ownership import ACK_DEADLINE_S, Ownership, Phase, is_claim
from orchestrator.coordinator.partition import Entry, Partition
from orchestrator.coordinator.publishing import Publishing
from orchestrator.coordinator.replies import answers, rejected, result_reply
from orchestrator.coordinator.retention import DEFAULT_RETENTION_MS
from orchestrator.coordinator.runs import MAX_RUNS_IN_MEMORY, Definitions
from orchestrator.coordinator.runtime import EngineClock, Runtime, new_id
from orchestrator.coordinator.turn import TurnMaker
from orchestrator.coordinator.verdicts import Committed, Erased, Found, Lost, Owned, Verdict, Void
from orchestrator.coordinator.watchdog import Abandoned, Unwatched, Watchdog
from orchestrator.engine.outbox import Outgoing
from orchestrator.errors import Unavailable, UsageError
from orchestrator.log.letters import letter_of, letter_record
from orchestrator.log.port import Appender, Change, Delivery, Log, Membership, Outcome, Record
from orchestrator.log.schemas import Schemas
from orchestrator.log.topics import (
    CLIENT_HEADER,
    COMMANDS,
    COMMANDS_TX,
    DEAD_LETTERS,
    HISTORY,
    META,
    REPLIES,
    TASKS,
    WORKER_HEADER,
    WORKERS,
)
from orchestrator.protocol.commands import Command, Rejection, StartWorkflow, WorkerLost, WorkflowCommand
from orchestrator.protocol.ids import check_workflow_id, partition_of
from orchestrator.protocol.records import Marks, Turn
from orchestrator.protocol.tasks import ActivityTask, Beat, CoordinatorBeat
from orchestrator.protocol.traces import trace_of_record
from orchestrator.store.fold import MAX_AWAY_MS
from orchestrator.store.partition_store import PartitionStore
from orchestrator.telemetry.traces import Traces, Untraced
from orchestrator.telemetry.versions import version

log = logging.getLogger(__name__)

MAX_COMMANDS_PER_STEP = 1_000
"""Per partition: bounds the length of a step, and so the latency of the other partitions."""

MAX_PENDING = 5_000
MAX_PENDING_BYTES = 16 * 1024 * 1024
"""Commands of one partition that were read and not decided: above either, no more are read."""

MAX_DISPATCHES_PER_STEP = 2_000
BEAT_S = 1.0
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

_BEAT = object()
"""The token of a beat."""

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
        self._log_id, self._identity, self._workers_end_with_log = log_id, identity, workers_end_with_log
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
        self._outgoing: Appender = log_.appender(ordered=False)
        self._schemas, self._clock_check = Schemas(), ClockCheck()
        self._beats, self._joined = 0, True
        self._next_beat_s = self._next_tidy_s = 0.0
        self._beat_answer_s = 0.0
        """Until then the answer to the last beat is awaited."""
        self._last_step_s = runtime.monotonic_s()
        self._lost_sent: dict[tuple[int, str], float] = {}
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
            self._outgoing.append(META, 0, key, schema)
        self._log.join()

    @property
    def silent_s(self) -> float:
        """For how long the loop has not turned. For any thread."""
        return self._runtime.monotonic_s() - self._last_step_s

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
            if partition.ownership.running and (self._moved(partition) or partition.caution.announced()):
                self._write_position(partition, [], now_ms)
        self._log.leave()
        self.step()

    @property
    def left(self) -> bool:
        """Whether nothing more is awaited of partitions that go to others."""
        return not any(found.ownership.phase is Phase.LEAVING for found in self.partitions.values())

    def close(self) -> None:
        """Tell the others, and close the stores. What is under way may still land, and counts."""
        self._beat(stopped=True)
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
        wait_s = min(MAX_POLL_S, max(0.0, min(self._beat_due_s(), self._next_tidy_s) - now_s))
        for partition in self.partitions.values():
            if partition.ownership.phase is Phase.RESTORING:
                return 0.0
            if not partition.ownership.running:
                wait_s = min(wait_s, 0.1)
                continue
            if partition.resumes:
                return 0.0
            if partition.pending and not partition.ownership.saturated:
                return 0.0
            next_ms = partition.deadlines.next_ms()
            if next_ms is not None:
                wait_s = min(wait_s, max(0.0, (next_ms - now_ms) / 1_000))
            next_s = partition.next_retry_s()
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
        self._beat_if_due()
        self._tidy_if_due()

    # -------------------------------------------------------------------------------- clock, members

    def _look_at_clock(self, timeout_s: float) -> None:
        now_s = self._runtime.monotonic_s()
        paused_s = now_s - self._last_step_s - timeout_s
        self._last_step_s = now_s
        if paused_s > MAX_PAUSE_S:
            log.warning("this process was paused for %.1f s: all partitions are claimed anew", paused_s)
        for partition in list(self.partitions.values()):
            partition.now_s = now_s
            if paused_s > MAX_PAUSE_S:
                self._incident(partition, f"paused for {paused_s:.1f} s")

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
        self._log.unseek(COMMANDS, partition.number)
        partition.intake.stop(self._log)
        if change is Change.LOST or not partition.ownership.retire():
            self._let_go(partition)

    def _let_go(self, partition: Partition) -> None:
        """The partition is another's. What is still under way counts if it lands before the other's claim."""
        self._meter.gave_up(partition.number, incident=False)
        partition.ownership.revoke()
        partition.drop(self._dispatcher)
        self._log.unseek(COMMANDS, partition.number)
        partition.intake.stop(self._log)
        partition.store.close()
        del self.partitions[partition.number]

    def _on_delivery(self, delivery: Delivery) -> None:
        token = delivery.token
        if token is None:
            return
        if token is _BEAT:
            self._beat_answer_s = 0.0
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
            self._dead_letter(receipt.forwarded, f"it cannot be forwarded: {error}", partition)
        else:
            partition.let_go(receipt)

    def _incident(self, partition: Partition, reason: str) -> None:
        """Anything unexpected has one treatment: claim anew, forget what was decided, rebuild."""
        if partition.ownership.phase is Phase.LEAVING:
            self._let_go(partition)
            return
        log.warning("partition %d is claimed anew: %s", partition.number, reason)
        self._meter.gave_up(partition.number, incident=True)
        self._log.unseek(COMMANDS, partition.number)
        partition.intake.stop(self._log)
        partition.drop(self._dispatcher)
        partition.ownership.incident()

    # ------------------------------------------------------------------------------------ read back

    def _read_back(self, records: list[Record]) -> None:
        committed: dict[int, list[Committed | Void | Erased]] = {}
        for record in records:
            partition = self.partitions.get(record.partition)
            if record.topic == WORKERS:
                self._on_beat_record(record)
            elif record.topic == META:
                self._schemas.take(record)
            elif partition is None:
                continue
            elif record.topic == COMMANDS:
                self._on_command_record(partition, record)
            elif record.topic == COMMANDS_TX:
                self._on_transactional(partition, record)
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
                self._send(partition, offset, entry.outgoing)
            for answer in entry.answers:
                self._answer(partition, answer, offset)
            draft = entry.draft
            if draft is not None and not draft.is_open:
                state = draft.run.state
                for command in partition.waiters_of(state.run_id):
                    reply = result_reply(state.run_id, state.status, state.close)
                    for answer in answers(command, reply):
                        self._answer(partition, answer, offset)

    def _send(self, partition: Partition, offset: int, outgoing: list[Outgoing]) -> None:
        sent = partition.outflow.expect(offset, len(outgoing), partition.now_s)
        for out in outgoing:
            task = out.task
            receipt = Receipt(partition.number, partition.ownership.nonce, sent, task)
            key = f"{task.run_id}/{task.activity_id}/{task.attempt}/{task.dispatch}".encode()
            headers = {WORKER_HEADER: task.worker.encode()}
            self._outgoing.append(TASKS, out.inbox, key, avro.encode(task), headers=headers, token=receipt)

    def _answer(self, partition: Partition, answer: Answer, offset: int) -> None:
        reply = msgspec.structs.replace(answer.reply, partition=partition.number, offset=offset)
        headers = {CLIENT_HEADER: answer.reply_to.client_id.encode()}
        key = reply.request_id.encode()
        self._outgoing.append(REPLIES, answer.reply_to.partition, key, avro.encode(reply), headers=headers)

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
            elif partition.ownership.phase is Phase.RESTORING:
                # A log that is away is asked once per step, for each question takes seconds.
                answers = answers and self._restore(partition)
            elif (lost := partition.ownership.tick()) is not None:
                self._incident(partition, lost.reason)
            elif partition.ownership.stale and (self._dispatcher.has_backlog or not partition.idle(now_ms)):
                self._incident(partition, "nothing was appended for long")
            elif partition.outflow.overdue_s(partition.now_s) > ACK_DEADLINE_S:
                self._outgoing.abandon()
                self._outgoing = self._log.appender(ordered=False)
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
                self._send(partition, turn_offset, outgoing)
        self._log.seek(COMMANDS, partition.number, partition.next_command)
        partition.follows_commands = True
        partition.intake.pace(self._log)
        partition.last_append_s = self._runtime.monotonic_s()
        if self._workers_end_with_log:
            self._lose_workers(partition, unseen=True)

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

    def _on_beat_record(self, record: Record) -> None:
        if record.value is None:
            return
        try:
            beat: Beat = avro.decode(record.value, WORKERS)
        except avro.DecodeError as error:
            self._dead_letter(record, f"undecodable beat: {error}", None)
            return
        self._dispatcher.on_beat(beat)
        if isinstance(beat, CoordinatorBeat):
            if beat.coordinator != self.incarnation:
                return
            self._clock_check.read(beat.number, record.time_ms, self._runtime.wall_ms())
            self._mind_clock()
        for partition in self.partitions.values():
            if partition.ownership.running:
                self._lose_workers(partition, unseen=False)

    def _mind_clock(self) -> None:
        """Who cannot tell the time leaves the group, and comes back when it can."""
        if self._clock_check.trusted == self._joined:
            return
        self._joined = self._clock_check.trusted
        if self._joined:
            log.warning("the clock of this machine is right again: this coordinator goes on")
            self._log.join()
            return
        skew_s = self._clock_check.skew_ms / 1_000
        log.error(
            "the clock of this machine is %.1f s %s the log's, at most %.0f s are allowed: this coordinator "
            "decides nothing until it is right; synchronize the clocks of this machine and of the brokers",
            abs(skew_s),
            "ahead of" if skew_s > 0 else "behind",
            MAX_SKEW_MS / 1_000,
        )
        self._log.leave()

    def _lose_workers(self, partition: Partition, *, unseen: bool) -> None:
        """Death is a command: it is decided after every completion that was appended before it."""
        now_s = self._runtime.monotonic_s()
        for worker in self._dispatcher.workers_to_lose(partition.number, unseen=unseen):
            sent_s = self._lost_sent.get((partition.number, worker))
            if sent_s is not None and now_s - sent_s < 10:
                continue
            self._lost_sent[partition.number, worker] = now_s
            command = WorkerLost(
                request_id=f"lost/{worker}", identity="engine", worker=worker, partition=partition.number
            )
            log.info("partition %d: worker %s is lost", partition.number, worker)
            self._outgoing.append(COMMANDS, partition.number, worker.encode(), avro.encode(command))

    def _beat_if_due(self) -> None:
        now_s = self._runtime.monotonic_s()
        if now_s >= self._beat_due_s():
            self._next_beat_s = now_s + BEAT_S
            self._beat_answer_s = now_s + ACK_DEADLINE_S
            self._beat()

    def _beat_due_s(self) -> float:
        """When the next beat is due, by the monotonic clock. It waits for the answer to the last one.

        Beats are counted as time: those of an outage, landing at once, would mean that workers whose own
        beats had no chance are dead.
        """
        return max(self._next_beat_s, self._beat_answer_s)

    def _beat(self, *, stopped: bool = False) -> None:
        self._beats += 1
        backlogs = self._dispatcher.backlogs()
        self._meter.beat(self.partitions.values(), backlogs, self._clock.now_ms())
        self._clock_check.sent(self._beats, self._runtime.wall_ms())
        beat = CoordinatorBeat(
            coordinator=self.incarnation,
            identity=self._identity,
            number=self._beats,
            partitions=tuple(
                sorted(number for number, found in self.partitions.items() if found.ownership.running)
            ),
            workflow_types=tuple(sorted(self._maker.definitions)),
            backlogs=backlogs,
            stopped=stopped,
            version=version(),
        )
        self._outgoing.append(WORKERS, 0, self.incarnation.encode(), avro.encode(beat), token=_BEAT)

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
                self._outgoing.append(HISTORY, partition.number, key, None)
            if partition.wants_position(now_s, POSITION_TO_TIDY_S):
                self._write_position(partition, [], now_ms)
        self._next_tidy_s = now_s + TIDY_S[0 if busy else 1]

    # --------------------------------------------------------------------------------------- decide

    def _on_command_record(self, partition: Partition, record: Record) -> None:
        if record.offset >= partition.next_command:
            partition.next_command = record.offset + 1
            if record.offset >= partition.marks.commands and record.offset not in partition.covered:
                partition.pending.append(record)
                partition.pending_bytes += len(record.value or b"")

    def _on_transactional(self, partition: Partition, record: Record) -> None:
        """A command of a transaction that was committed: to where commands are decided."""
        if not partition.ownership.running or not partition.intake.take(record.offset):
            return
        command = self._decode_command(partition, record)
        if isinstance(command, WorkerLost):
            self._dead_letter(record, "only coordinators can know that a worker is lost", partition)
        elif command is not None:
            home = partition_of(command.workflow_id, self._log.partitions(COMMANDS))
            self._forward(partition, record, command, home)

    def _decide(self) -> None:
        """Make the turns of all partitions that run, let waiting activities find workers, append."""
        now_ms = self._clock.now_ms()
        work: list[_Work] = []
        for partition in self.partitions.values():
            if not partition.ownership.running or partition.ownership.saturated or partition.idle(now_ms):
                continue
            inputs = partition.inputs(now_ms, MAX_COMMANDS_PER_STEP)
            self._meter.came(inputs, now_ms)
            made = Made()
            if self._take_commands(partition, inputs, made, now_ms) or inputs:
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
                self._pace(partition)
                partition.intake.pace(self._log)
                self._try_next(partition, now_ms)
                self._write_position_if_idle(partition, now_ms)

    def _pace(self, partition: Partition) -> None:
        """Commands that cannot be decided so fast are left in the log, not in memory."""
        full = len(partition.pending) >= MAX_PENDING or partition.pending_bytes >= MAX_PENDING_BYTES
        few = len(partition.pending) <= MAX_PENDING // 2 and partition.pending_bytes <= MAX_PENDING_BYTES // 2
        if partition.follows_commands and full:
            self._log.unseek(COMMANDS, partition.number)
            partition.follows_commands = False
        elif few and not partition.follows_commands:
            self._log.seek(COMMANDS, partition.number, partition.next_command)
            partition.follows_commands = True

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
            self._write_position(partition, [], now_ms, trying=run_id)
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
        try:
            self._maker.make(partition, workflow_id, given, now_ms, made)
        except Exception:
            self._poison(partition, workflow_id)
            return False
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
        for run in made.blocked:
            partition.retry_later(run)
        for warned in made.warnings:
            ids = {"workflow_id": warned.workflow_id, "run_id": warned.run_id}
            log.warning("%s", warned.message, extra=ids)

    def _take_commands(
        self, partition: Partition, inputs: dict[str, list[Input]], made: Made, now_ms: int
    ) -> int:
        """Decode commands and put them with the inputs of their workflow id; returns how many were taken."""
        count = self._log.partitions(COMMANDS)
        taken = 0
        while partition.pending and taken < MAX_COMMANDS_PER_STEP:
            record = partition.pending.popleft()
            partition.pending_bytes -= len(record.value or b"")
            taken += 1
            command = self._decode_command(partition, record)
            if command is None:
                continue
            self._meter.took(command, now_ms - record.time_ms)
            if isinstance(command, WorkerLost):
                made.late.append(record.offset)
                self._on_worker_lost(partition, command, inputs)
                continue
            if command.workflow_id in partition.poisoned:
                self._set_aside(partition, record, command)
                continue
            home = partition_of(command.workflow_id, count)
            if home != partition.number:
                self._forward(partition, record, command, home)
                continue
            inputs.setdefault(command.workflow_id, []).append(Input(command, record.offset))
        return taken

    def _decode_command(self, partition: Partition, record: Record) -> Command | None:
        try:
            command = avro.decode_command(record.value or b"")
            if not isinstance(command, WorkerLost):
                check_workflow_id(command.workflow_id)
        except (avro.DecodeError, UsageError) as error:
            self._dead_letter(record, str(error), partition)
            return None
        if not command.request_id:
            request_id = f"{record.topic}-{record.partition}-{record.offset}"
            command = msgspec.structs.replace(command, request_id=request_id)
        if record.headers and isinstance(command, StartWorkflow) and not command.headers:
            command = msgspec.structs.replace(command, headers=trace_of_record(record.headers))
        return command

    def _set_aside(self, partition: Partition, record: Record, command: WorkflowCommand) -> None:
        """A command of an id that the engine failed on: a dead letter, and an answer to who asks."""
        self._dead_letter(record, partition.poisoned[command.workflow_id], partition)
        message = f"the engine failed on workflow id {command.workflow_id!r}; see the dead letters"
        for answer in answers(command, rejected(Rejection(reason="engine-failed", message=message))):
            self._answer(partition, answer, partition.ownership.next_offset - 1)

    def _on_worker_lost(
        self, partition: Partition, command: WorkerLost, inputs: dict[str, list[Input]]
    ) -> None:
        for ref in self._dispatcher.open_on(command.worker, partition.number):
            if ref.workflow_id in partition.poisoned:
                continue
            given = Input(LoseWorker(command.worker), run_id=ref.run_id)
            found = inputs.setdefault(ref.workflow_id, [])
            if given not in found:
                found.append(given)
        self._lost_sent.pop((partition.number, command.worker), None)

    def _forward(self, partition: Partition, record: Record, command: Command, home: int) -> None:
        """A command on the wrong partition is never decided there, nor is one on ``commands-tx``."""
        partition.hold(record)
        receipt = Receipt(partition.number, partition.ownership.nonce, forwarded=record)
        self._outgoing.append(COMMANDS, home, record.key, avro.encode(command), token=receipt)

    def _dead_letter(self, record: Record, reason: str, partition: Partition | None) -> None:
        log.warning("%s-%d at %d: %s", record.topic, record.partition, record.offset, reason)
        self._meter.set_aside(record.topic)
        receipt = None
        if partition is not None:
            partition.hold(record)
            receipt = Receipt(partition.number, partition.ownership.nonce, set_aside=record)
        letter = letter_record(letter_of(record, reason))
        self._outgoing.append(DEAD_LETTERS, 0, letter.key, letter.value, token=receipt)

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
        marks = self._marks(partition, made)
        sent_through = partition.outflow.sent_through
        for draft, mark in zip(made.drafts, marks, strict=True):
            try:
                partition.seal(draft, mark, sent_through)
            except Exception:
                self._poison(partition, draft.run.state.workflow_id)
                return
        if made.drafts:
            partition.last_append_s = partition.now_s
            partition.written_marks = marks[-1]
            partition.written_sent_through = sent_through
        if made.covered:
            if made.drafts:
                partition.ownership.last_entry().answers.extend(made.covered)
            else:
                self._write_position(partition, made.covered, now_ms)
        if made.live:
            entry: Entry | None = partition.ownership.last_entry()
            if entry is not None:
                entry.answers.extend(made.live)
            else:
                for answer in made.live:
                    self._answer(partition, answer, partition.ownership.next_offset - 1)

    def _marks(self, partition: Partition, made: Made) -> list[Marks]:
        """The low-water marks of each draft: below them, everything is covered by it or earlier ones."""
        whole = self._low_water(partition)
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

    def _low_water(self, partition: Partition) -> Marks:
        """Below them, every command was decided, or set aside or forwarded, which was acknowledged."""
        low = partition.pending[0].offset if partition.pending else partition.next_command
        return Marks(commands=min([low, *partition.held]), commands_tx=partition.intake.mark)

    def _moved(self, partition: Partition) -> bool:
        """Whether more is consumed than history says."""
        low, written = self._low_water(partition), partition.written_marks
        return low.commands > written.commands or low.commands_tx > written.commands_tx

    def _write_position(
        self, partition: Partition, answers: list[Answer], now_ms: int, *, trying: str = ""
    ) -> None:
        marks = self._low_water(partition)
        partition.append_position(marks, partition.outflow.sent_through, now_ms, answers, trying)
        partition.written_marks, partition.written_sent_through = marks, partition.outflow.sent_through
        partition.last_append_s = partition.now_s

    def _write_position_if_idle(self, partition: Partition, now_ms: int) -> None:
        if partition.now_s - partition.last_append_s < POSITION_AFTER_S or partition.ownership.in_flight:
            return
        if self._moved(partition) or partition.outflow.sent_through > partition.written_sent_through:
            self._write_position(partition, [], now_ms)
        marks = partition.marks
        for topic, mark in ((COMMANDS, marks.commands), (COMMANDS_TX, marks.commands_tx)):
            if mark - self._deleted.get((topic, partition.number), 0) >= DELETE_EVERY:
                self._log.delete_records(topic, partition.number, mark)
                self._deleted[topic, partition.number] = mark
