"""The one place where rules meet user code: the inputs of a workflow id become turns.

Recording a fact and running code are two things. The inputs of one id in one step form one turn:
decide each, evolve, tell the instance all new facts once, translate what it did, evolve. A turn ends
before a command that must see what the code made of the earlier ones (a start, a termination, a query)
and after anything that closes the run. Facts of a run whose code cannot be told now (it is blocked, or
being replayed in slices) are recorded as deferred, and told later, in order, in one activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from orchestrator.codec import failures, payloads
from orchestrator.coordinator.caution import Caution, ProcessEnded
from orchestrator.coordinator.dispatch import ActivityRef, Dispatcher
from orchestrator.coordinator.outflow import Receipt
from orchestrator.coordinator.runs import Definitions, Replay, Run, Runs, make_instance
from orchestrator.coordinator.runtime import PYTHON_VERSION, Runtime, new_id
from orchestrator.coordinator.watchdog import Watch, under
from orchestrator.engine import activity, decider, execution, translate
from orchestrator.engine.state import ActivityPhase, Changes, Deadline, DeadlineKind
from orchestrator.errors import (
    CommandRejected,
    InvalidArguments,
    NotDeterministic,
    PayloadError,
    QueryFailed,
    RecordRefused,
    UnknownName,
)
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.actions import Action, PublishEvent, ScheduleActivity
from orchestrator.protocol.records import Activation, Cause, Marks, Turn
from orchestrator.protocol.tasks import ActivityTask, Reply
from orchestrator.protocol.values import (
    MAX_PAYLOAD_BYTES,
    Failure,
    FailureKind,
    Payload,
    Payloads,
    ReplyTo,
    WorkflowStatus,
)
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.refusals import Refusals
from orchestrator.store.rows import Row, encode_state
from orchestrator.store.summaries import Glance, glance_of
from orchestrator.telemetry.traces import Traces
from orchestrator.workflow.definition import Handler
from orchestrator.workflow.instance import WorkflowCodeError
from orchestrator.workflow.loop import Evicted
from orchestrator.workflow.signals import why_unfit

REPLAY_SLICE_S = 0.020
"""Replay of one run per step: a long history must not stall the partition."""

BLOCKED_RETRY_S = (1.0, 600.0)
"""First and longest delay before a blocked run's code is tried again; it doubles each time."""

MAX_DOUBLINGS = 30
"""Of that delay: it is the longest long before, and a run may stay blocked for ever."""

MAX_REQUESTS = 20_000
"""Request ids kept per workflow id, those of its earlier runs too. Repeats come within seconds or minutes."""

MAX_SETTLES = 10
"""Turns in a row, in one step, in which code asks to cancel what waits and is told that it is canceled. Code
may do that for ever; others shall not wait for it."""

NO_MARKS = Marks()

CODE_ERRORS = (WorkflowCodeError, NotDeterministic, Evicted, KeyboardInterrupt, ProcessEnded, RecordRefused)
"""What user code ends with when it cannot go on. A ``KeyboardInterrupt`` here was raised by the code itself:
Ctrl-C reaches the main thread only. It must not end the engine at each start."""


class DispatchOrder(msgspec.Struct, frozen=True):
    """Send waiting activities to workers: (activity id, worker, inbox) each."""

    wanted: tuple[tuple[int, str, int], ...]


class LoseWorker(msgspec.Struct, frozen=True):
    """A worker is gone: its attempts of this run have failed."""

    worker: str


class Resume(msgspec.Struct, frozen=True):
    """Look at the run again: its code may go on, or something is left to be settled."""


class RefusedDelivery(msgspec.Struct, frozen=True):
    """The log refused the record of a delivery for good: the attempt has failed."""

    task: ActivityTask
    error: str
    receipt: Receipt


Item = c.Command | Deadline | DispatchOrder | LoseWorker | Resume | RefusedDelivery


class Input(msgspec.Struct, frozen=True, gc=False):
    """Something that concerns one workflow id. ``offset`` is the command's, -1 for the engine's own."""

    item: Item
    offset: int = -1
    run_id: str = ""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A reply and the client it goes to."""

    reply_to: ReplyTo
    reply: Reply


class Draft(msgspec.Struct, eq=False, gc=False):
    """A turn before it has a place in the log, and everything that happens once it is committed."""

    run: Run
    turn: int
    first_event_id: int
    time_ms: int
    activation: Activation
    events: tuple[e.Event, ...]
    causes: tuple[Cause, ...]
    changes: Changes
    state: bytes | None
    is_open: bool
    answers: list[Answer]
    offsets: tuple[int, ...]
    settled: list[Receipt]
    glance: Glance | None
    """How the run looks after it, for a store that lists are read from."""


def turn_of(
    draft: Draft, *, epoch: int = 0, seq: int = 0, marks: Marks = NO_MARKS, sent_through: int = -1
) -> Turn:
    """A draft at its place in the log; without a place, as code is told of it before it has one."""
    state = draft.run.state
    return Turn(
        epoch=epoch,
        seq=seq,
        marks=marks,
        sent_through=sent_through,
        time_ms=draft.time_ms,
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        turn=draft.turn,
        first_event_id=draft.first_event_id,
        activation=draft.activation,
        events=draft.events,
        causes=draft.causes,
        headers=state.headers,
    )


class Warned(NamedTuple):
    """What operators should know of a run."""

    message: str
    workflow_id: str
    run_id: str


class Made(msgspec.Struct):
    """What the inputs of one step led to, in one partition.

    ``covered`` are answers to release when the consumption of their commands is committed, ``live``
    those to release when everything in flight now is read back. ``waiting`` are activities that need a
    worker, ``replaying`` the ids whose replay goes on in the next step, ``blocked`` the runs whose code
    is to be tried again, ``settled`` refused deliveries that concern nobody any more, ``late`` the offsets
    of commands that only the step's last turn may cover.
    """

    drafts: list[Draft] = []
    covered: list[Answer] = []
    live: list[Answer] = []
    waiting: list[tuple[ActivityRef, str, int, int]] = []
    waiters: list[tuple[str, c.AwaitResult]] = []
    replaying: list[str] = []
    blocked: list[Run] = []
    settled: list[Receipt] = []
    late: list[int] = []
    warnings: list[Warned] = []


class Partition(Protocol):
    """What making turns needs of a partition."""

    number: int
    runs: Runs
    store: PartitionStore
    suspects: frozenset[str]
    caution: Caution
    refusals: Refusals
    chores: list[Row]
    """Rows for the store that belong to no turn; written with the next batch."""

    @property
    def held_back(self) -> Mapping[str, str]:
        """Runs whose business events the log refuses, and why."""

    def why_unwritable(self, workflow_id: str) -> str:
        """Why the log does not take what the code of an id does; "" if it may."""

    def drafts_in_flight(self, run: Run) -> list[Draft]:
        """The turns of a run that are appended and not yet in the store, in order."""

    def request_in_flight(self, workflow_id: str, request_id: str) -> Draft | None:
        """The draft of this step or in flight that a request led to."""

    def note_request(self, workflow_id: str, request_id: str, draft: Draft) -> None:
        """A request led to a draft."""


class TurnMaker:
    """Makes the turns of all partitions of a coordinator."""

    def __init__(
        self,
        definitions: Definitions,
        dispatcher: Dispatcher,
        runtime: Runtime,
        watch: Watch,
        refusal_of_topic: Callable[[str, int], str],
        *,
        traces: Traces,
    ) -> None:
        """``definitions`` are the workflow types that this process can run."""
        self.traces = traces
        self.refusal_of_topic = refusal_of_topic
        self.definitions = definitions
        self.dispatcher = dispatcher
        self.runtime = runtime
        self.watch = watch

    def make(
        self, partition: Partition, workflow_id: str, inputs: Sequence[Input], now_ms: int, made: Made
    ) -> None:
        """Turn the inputs of one workflow id into drafts and answers, appended to ``made``."""
        builder = _Builder(self, partition, workflow_id, now_ms, made)
        for given in inputs:
            HANDLE[type(given.item)](builder, given)
        builder.finish()


class _Builder:
    """The turn of one workflow id that is being made."""

    def __init__(
        self, maker: TurnMaker, partition: Partition, workflow_id: str, now_ms: int, made: Made
    ) -> None:
        self.maker, self.partition, self.workflow_id, self.made = maker, partition, workflow_id, made
        self.engine_now_ms = now_ms
        self.run = partition.runs.get(workflow_id)
        self._begin()

    def _begin(self) -> None:
        """Begin the next turn."""
        state = self.run.state if self.run is not None else None
        self.first_event_id = state.next_event_id if state is not None else 1
        self.now_ms = max(self.engine_now_ms, state.time_ms if state is not None else 0)
        self.events: list[e.Event] = []
        self.causes: list[Cause] = []
        self.requests: list[str] = []
        self.answers: list[Answer] = []
        self.offsets: list[int] = []
        self.settled: list[Receipt] = []
        self.changes = Changes()
        self.resume = False

    # ------------------------------------------------------------------------------------- deciding

    def add(self, events: Sequence[e.Event], given: Input | None = None) -> None:
        """Record events, caused by a command if one is given; a close ends the turn."""
        assert self.run is not None
        if given is not None and given.offset >= 0 and isinstance(given.item, c.CommandBase):
            command = given.item
            kind = type(command).__name__
            request_id = "" if isinstance(command, decider.REPORTS) else command.request_id
            self.causes.append(
                Cause(source="commands", offset=given.offset, request_id=request_id, kind=kind)
            )
            self.offsets.append(given.offset)
            if request_id:
                self.requests.append(request_id)
        if not events:
            return
        decider.evolve_events(self.run.state, events, self.now_ms, self.changes)
        self.events.extend(events)
        if not self.run.state.is_open:
            self.finish()

    def answer(self, command: Any, reply: Reply, to: list[Answer]) -> None:
        """Answer a command, if it asks for an answer."""
        to.extend(answers(command, reply))

    def reject(self, command: Any, rejection: c.Rejection) -> None:
        """Refuse a command; a repeat of it is refused likewise."""
        if command.request_id:
            now_ms = self.engine_now_ms
            self.partition.refusals.note(self.workflow_id, command.request_id, rejection, now_ms)
        self.answer(command, rejected(rejection), self.made.covered)

    def repeated(self, command: Any) -> bool:
        """Whether a request had its effect, or its refusal, already; it is answered as it was then."""
        request_id = command.request_id
        if not request_id:
            return False
        if request_id in self.requests:
            self.answer(command, self._accepted(), self.answers)
            return True
        draft = self.partition.request_in_flight(self.workflow_id, request_id)
        if draft is not None:
            self.answer(
                command, Reply(client_id="", request_id="", run_id=draft.run.state.run_id), draft.answers
            )
            return True
        rejection = self.partition.refusals.find(self.workflow_id, request_id, self.engine_now_ms)
        if rejection is not None:
            self.answer(command, rejected(rejection), self.made.covered)
            return True
        request = self.partition.store.request(self.workflow_id, request_id)
        if request is not None:
            self.answer(command, Reply(client_id="", request_id="", run_id=request.run_id), self.made.covered)
            return True
        return False

    def _accepted(self) -> Reply:
        assert self.run is not None
        return Reply(client_id="", request_id="", run_id=self.run.state.run_id)

    def on_start(self, given: Input) -> None:
        """A start is decided on the id's latest run, after everything before it took effect."""
        command: Any = given.item
        if self.repeated(command):
            return
        if self.run is not None and self.run.state.is_open:
            self.finish()
        if refused := self._refusal_of_start(command):
            self.reject(command, refused)
            return
        latest = self.run.state if self.run is not None else None
        flags = e.RunFlags(python=PYTHON_VERSION)
        decided = execution.decide_start(latest, command, self.now_ms, flags)
        if isinstance(decided, c.Rejection):
            self.reject(command, decided)
            return
        (started,) = decided
        assert isinstance(started, e.WorkflowStarted)
        self.now_ms = max(self.engine_now_ms, latest.time_ms if latest is not None else 0)
        run_id = new_id(self.maker.runtime)
        known = self.run.requests if self.run is not None else 0
        headers = self.maker.traces.run_headers(command, run_id)
        state = execution.new_run(self.workflow_id, run_id, started, self.now_ms, headers)
        self.run = Run(state, requests=known)
        self.first_event_id = 1
        self.partition.runs.put(self.run)
        if command.await_result:
            waiter = c.AwaitResult(
                workflow_id=self.workflow_id,
                run_id=run_id,
                request_id=command.request_id,
                reply_to=command.reply_to,
            )
            self.made.waiters.append((run_id, waiter))
        else:
            self.answer(command, self._accepted(), self.answers)
        self.add(decided, given)

    def _refusal_of_start(self, command: c.StartWorkflow) -> c.Rejection | None:
        if refused := too_large(command):
            return refused
        known_here = command.workflow_type in self.maker.definitions
        if known_here or self.maker.dispatcher.peer_knows(command.workflow_type):
            return None
        known = ", ".join(sorted(self.maker.definitions)) or "none"
        return c.Rejection(
            reason="unknown-name",
            message=f"there is no workflow type {command.workflow_type!r}; known: {known}",
        )

    def on_client_command(self, given: Input) -> None:
        """A signal, cancel or terminate: to an open run, or refused."""
        command: Any = given.item
        if self.repeated(command):
            return
        if isinstance(command, c.TerminateWorkflow):
            self.finish()
        state = self.run.state if self.run is not None else None
        refused = too_large(command) or decider.why_not(state, command) or self._refusal_of_signal(command)
        if refused:
            self.reject(command, refused)
            return
        assert state is not None
        decided = decider.decide(state, command, self.now_ms)
        assert not isinstance(decided, c.Rejection)
        self.answer(command, self._accepted(), self.answers if decided else self.made.covered)
        if decided:
            self.add(decided, given)

    def _refusal_of_signal(self, command: Any) -> c.Rejection | None:
        """Why the workflow, as its class declares it, cannot take a signal.

        What is accepted and does not fit all the same, because the code has changed meanwhile, is dropped
        with a warning when the code is told.
        """
        run = self.run
        definition = self.maker.definitions.get(run.state.workflow_type) if run is not None else None
        if not isinstance(command, c.SignalWorkflow) or run is None or definition is None:
            return None
        handler = definition.signals.get(command.signal_name)
        if handler is not None:
            if not (why := self._why_unfit(run, handler, command.input)):
                return None
            reason = InvalidArguments.reason
            message = f"signal {handler.name!r} of workflow {definition.name!r} cannot take this: {why}"
        elif definition.accepts_signal(command.signal_name):
            return None
        else:
            reason = UnknownName.reason
            known = ", ".join(sorted(definition.signals)) or "none"
            message = f"workflow {definition.name!r} has no signal {command.signal_name!r}; known: {known}"
        return c.Rejection(reason=reason, message=message, run_id=run.state.run_id)

    def _why_unfit(self, run: Run, handler: Handler, input: Payloads) -> str:
        try:
            return under(self.maker.watch, run, lambda: why_unfit(handler, input, payloads.DEFAULT))
        except CODE_ERRORS:  # making the values does not give way: the same blocks the run, when it is told
            self.partition.runs.drop(run)
            return ""

    def on_report(self, given: Input) -> None:
        """A worker's report; only the open delivery's changes anything."""
        command: Any = given.item
        if (refused := too_large(command)) is not None:
            failure = failures.to_failure(PayloadError(refused.message), payloads.DEFAULT)
            command = failed_instead(command, msgspec.structs.replace(failure, non_retryable=True))
        state = self.run.state if self.run is not None else None
        decided = decider.decide(state, command, self.now_ms)
        if decided and not isinstance(decided, c.Rejection):
            if isinstance(command, c.ReturnActivity):
                self.maker.dispatcher.refused(command.worker)
            self.add(decided, given)

    def on_deadline(self, given: Input) -> None:
        """A deadline has come; the end of a backoff makes the activity wait for a worker."""
        deadline: Any = given.item
        if self.run is None or self.run.state.run_id != given.run_id:
            return
        state = self.run.state
        if deadline.kind is not DeadlineKind.RETRY:
            self.add(decider.decide_deadline(state, deadline, self.now_ms))
            return
        found = state.activities.get(deadline.id)
        if found is not None and found.phase is ActivityPhase.BACKOFF and found.retry_time_ms <= self.now_ms:
            self._wait(found.activity_id)

    def on_dispatch(self, given: Input) -> None:
        """Waiting activities go to workers."""
        order: Any = given.item
        decided: tuple[e.ActivitiesDispatched, ...] = ()
        if self.run is not None and self.run.state.is_open and self.run.state.run_id == given.run_id:
            decided = activity.decide_dispatch(self.run.state, order.wanted)
        sent = {dispatch.activity_id for event in decided for dispatch in event.dispatches}
        for activity_id, worker, _ in order.wanted:
            if activity_id not in sent:
                ref = ActivityRef(self.partition.number, self.workflow_id, given.run_id, activity_id)
                self.maker.dispatcher.freed(ref, worker)
        self.add(decided)

    def on_lose_worker(self, given: Input) -> None:
        """The attempts with a lost worker have failed."""
        lost: Any = given.item
        if self.run is not None and self.run.state.is_open and self.run.state.run_id == given.run_id:
            self.add(activity.decide_worker_lost(self.run.state, lost.worker, self.now_ms))

    def on_refused_delivery(self, given: Input) -> None:
        """An attempt whose task the log refused has failed; that is settled once it is committed."""
        refused: Any = given.item
        failure = Failure(
            kind=FailureKind.APPLICATION,
            type="RecordRefused",
            message=f"the log refused the task: {refused.error}",
        )
        decided = decider.decide(
            self.run.state if self.run is not None else None,
            failed_report(refused.task, failure),
            self.now_ms,
        )
        if not decided or isinstance(decided, c.Rejection):
            self.made.settled.append(refused.receipt)
            return
        self.settled.append(refused.receipt)
        self.add(decided)

    def on_resume(self, given: Input) -> None:
        """Try again to tell the code what it has yet to be told."""
        if self.run is not None and self.run.state.is_open:
            self.resume = True
            self.add(activity.decide_settle(self.run.state))

    def on_await(self, given: Input) -> None:
        """Wait for the close of a run, or answer if it is closed and committed."""
        command: Any = given.item
        self.finish()
        state = self.run.state if self.run is not None else None
        if state is not None and command.run_id and state.run_id != command.run_id:
            state = self.partition.store.state(command.run_id)
            if state is not None and state.workflow_id != self.workflow_id:
                state = None
        if state is None:
            refused = decider.why_not(None, command)
            assert refused is not None
            self.answer(command, rejected(refused), self.made.covered)
        elif state.is_open or (self.run is not None and self.run.state is state and self.run.pinned):
            self.made.waiters.append((state.run_id, command))
        else:
            self.answer(command, result_reply(state.run_id, state.status, state.close), self.made.live)

    def on_query(self, given: Input) -> None:
        """Ask the live instance, after everything before the query took effect."""
        command: Any = given.item
        self.finish()
        run = self.run
        if run is None or (command.run_id and run.state.run_id != command.run_id):
            refused = decider.why_not(run.state if run else None, command)
            assert refused is not None
            self.answer(command, rejected(refused), self.made.covered)
            return
        if run.state.deferred_from and run.state.blocked is None:
            self.resume = True
            self.finish()
            if run.state.deferred_from and run.state.blocked is None:
                return  # its replay goes on in the next step; the client asks again
        reply = self._query(run, command)
        if reply is not None:
            self.answer(command, reply, self.made.live)

    def _query(self, run: Run, command: c.QueryWorkflow) -> Reply | None:
        state = run.state
        reply = Reply(client_id="", request_id="", run_id=state.run_id, status=state.status.value)
        if state.blocked is not None:
            return msgspec.structs.replace(reply, failure=blocked_failure(state.run_id, state.blocked))
        try:
            if not self.partition.caution.admits(state):
                return None  # the client asks again
            if run.instance is None and not self._replayed(run, lambda: False):
                return None
            assert run.instance is not None
            query = partial(run.instance.query, command.query_name, command.input)
            result = under(self.maker.watch, run, query)
            return msgspec.structs.replace(reply, result=result)
        except CommandRejected as error:
            refused = c.Rejection(reason=error.reason, message=str(error), run_id=state.run_id)
            return rejected(refused)
        except (QueryFailed, *CODE_ERRORS) as error:
            if run.instance is None or not run.instance.usable:  # it stopped halfway, or is not as it was
                self.partition.runs.drop(run)
            failure = failures.to_failure(_as_exception(error), payloads.DEFAULT)
            return msgspec.structs.replace(reply, failure=failure)

    # ------------------------------------------------------------------------------------- the turn

    def finish(self) -> None:
        """End the turn: tell the code, note what it did, make the draft; then settle what it canceled."""
        for _ in range(MAX_SETTLES):
            if not self._finish_turn():
                return
            assert self.run is not None
            self.add(activity.decide_settle(self.run.state))
        if self._finish_turn():
            self.made.replaying.append(self.workflow_id)

    def _finish_turn(self) -> bool:
        """End the turn; whether its code canceled something that can be settled at once."""
        run = self.run
        if run is None or not (self.events or self.causes or self.resume):
            return False
        state = run.state
        if state.is_open and (over := execution.decide_limits(state)):
            decider.evolve_events(state, over, self.now_ms, self.changes)
            self.events.extend(over)
        activation = self._activation(run)
        if not (self.events or self.causes or activation is Activation.DONE):
            self._begin()
            return False
        decider.end_turn(state, activation)
        self._draft(run, activation)
        canceled = e.ActivityCancelRequested in map(type, self.events)
        self._begin()
        return canceled and state.is_open and bool(activity.decide_settle(state))

    def _activation(self, run: Run) -> Activation:
        state = run.state
        if not state.is_open:
            self.partition.runs.drop(run)
            return Activation.NONE
        facts = e.facts_of(self.events)
        if not facts and not self.resume:
            return Activation.NONE
        held_back = state.run_id in self.partition.held_back
        if not (facts or state.deferred_from or state.blocked is not None or held_back):
            return Activation.NONE
        try:
            told = self._facts_to_tell(run, facts)
            if told is None:
                return Activation.DEFERRED if facts else Activation.NONE
            instance = run.instance
            assert instance is not None
            activate = partial(instance.activate, told, self.now_ms, history_events=self.first_event_id - 1)
            actions = under(self.maker.watch, run, activate)
            self._check_topics(actions)
        except CODE_ERRORS as error:
            self._block(run, error)
            return Activation.DEFERRED if facts else Activation.NONE
        if state.blocked is not None:
            self._note(e.WorkflowUnblocked())
            run.retries = 0
        self._translate(run, actions)
        return Activation.DONE

    def _check_topics(self, actions: Sequence[Action]) -> None:
        """Events that the log is known to refuse block the run before they are recorded."""
        for action in actions:
            if isinstance(action, PublishEvent):
                size = len(action.key) + len(action.payload.data)
                if reason := self.maker.refusal_of_topic(action.topic, size):
                    raise refused_event(reason)

    def _translate(self, run: Run, actions: Sequence[Action]) -> None:
        state = run.state

        def pick(action: ScheduleActivity) -> tuple[str, int] | None:
            ref = ActivityRef(self.partition.number, self.workflow_id, state.run_id, action.activity_id)
            return self.maker.dispatcher.take(ref, action.task_queue)

        for action in actions:
            events = translate.translate(state, action, self.now_ms, pick)
            decider.evolve_events(state, events, self.now_ms, self.changes)
            self.events.extend(events)
        if not state.is_open:
            self.partition.runs.drop(run)

    def _facts_to_tell(self, run: Run, facts: list[e.Fact]) -> list[e.Fact] | None:
        """All facts since the code was last told; None if it cannot be told now."""
        state = run.state
        if self.workflow_id in self.partition.suspects:
            raise Evicted
        if refused := self.partition.why_unwritable(self.workflow_id):
            raise RecordRefused(refused)
        waits = state.blocked is not None and self.maker.runtime.monotonic_s() < run.retry_at_s
        if waits or not self.partition.caution.admits(state):
            return None
        if (reason := self.partition.held_back.get(state.run_id)) is not None:
            raise refused_event(reason)
        if run.instance is not None and not state.deferred_from:
            return facts
        if isinstance(facts[0] if facts else None, e.WorkflowStarted):
            definition = self.maker.definitions.get(state.workflow_type)
            if definition is None:  # a peer knows it: told when the partition, or the code, has come there
                return None
            run.instance = make_instance(
                definition,
                facts[0],  # type: ignore[arg-type]
                workflow_id=state.workflow_id,
                run_id=state.run_id,
                start_time_ms=state.start_time_ms,
            )
            return facts
        deadline_s = self.maker.runtime.monotonic_s() + REPLAY_SLICE_S
        if not self._replayed(run, lambda: self.maker.runtime.monotonic_s() >= deadline_s):
            return None
        earlier = run.replay.facts if run.replay is not None else []
        run.replay = None
        return [*earlier, *facts]

    def _replayed(self, run: Run, done: Callable[[], bool]) -> bool:
        """Go on with a run's replay; whether it has reached the last turn before this one."""
        state = run.state
        definition = self.maker.definitions.get(state.workflow_type)
        if definition is None and self.maker.dispatcher.peer_knows(state.workflow_type):
            return False
        if definition is None:
            known = ", ".join(sorted(self.maker.definitions)) or "none"
            raise NotDeterministic(
                f"this process has no workflow type {state.workflow_type!r} any more; known: {known}"
            )
        if run.replay is None:
            self.partition.runs.drop(run)
            run.replay = Replay(
                lambda started, turn: make_instance(
                    definition,
                    started,
                    workflow_id=turn.workflow_id,
                    run_id=turn.run_id,
                    start_time_ms=turn.time_ms,
                )
            )
        replay = run.replay
        turns = self._turns_after(run, replay.turn)
        through = under(self.maker.watch, run, lambda: replay.advance(turns, done))
        if not through:
            self.made.replaying.append(self.workflow_id)
            return False
        run.instance = replay.instance
        if not state.deferred_from:
            run.replay = None
        return True

    def _turns_after(self, run: Run, turn: int) -> Iterator[Turn]:
        """The turns of a run that come after one: in the store, in flight, and made in this step."""
        yield from self.partition.store.turns(run.state.run_id, after=turn)
        made = (draft for draft in self.made.drafts if draft.run is run)
        for draft in (*self.partition.drafts_in_flight(run), *made):
            if draft.turn > turn:
                yield turn_of(draft)

    def _block(self, run: Run, error: BaseException) -> None:
        """The code cannot go on: say why, once per reason, and try again later."""
        self.partition.runs.drop(run)
        first_s, longest_s = BLOCKED_RETRY_S
        delay_s = min(first_s * 2.0 ** min(run.retries, MAX_DOUBLINGS), longest_s)
        run.retries += 1
        run.retry_at_s = self.maker.runtime.monotonic_s() + delay_s
        self.made.blocked.append(run)
        failure = block_failure(error)
        known = run.state.blocked
        news = isinstance(error, ProcessEnded) and error.news
        if news or known is None or (known.type, known.message) != (failure.type, failure.message):
            self._note(e.WorkflowBlocked(reason=failure.type, failure=failure))
            self._warn(run, f"is blocked: {failure.message}")

    def _note(self, event: e.Event) -> None:
        assert self.run is not None
        decider.evolve_events(self.run.state, (event,), self.now_ms, self.changes)
        self.events.append(event)

    def _draft(self, run: Run, activation: Activation) -> None:
        state = run.state
        row = encode_state(state) if run.takes_snapshot() else None
        draft = Draft(
            run=run,
            turn=state.turn,
            first_event_id=self.first_event_id,
            time_ms=self.now_ms,
            activation=activation,
            events=tuple(self.events),
            causes=tuple(self.causes),
            changes=self.changes,
            state=row,
            is_open=state.is_open,
            answers=self.answers,
            offsets=tuple(self.offsets),
            settled=self.settled,
            glance=glance_of(state, self.changes) if self.partition.store.indexed else None,
        )
        run.in_flight += 1
        self.made.drafts.append(draft)
        for request_id in self.requests:
            self.partition.note_request(self.workflow_id, request_id, draft)
        if self.requests:
            self._limit_requests(run)
        for activity_id in self.changes.waiting:
            self._wait(activity_id)
        if self.first_event_id <= execution.WARN_EVENTS < state.next_event_id and state.is_open:
            self._warn(
                run,
                f"has more than {execution.WARN_EVENTS} events; it is terminated at {execution.MAX_EVENTS}",
            )

    def _warn(self, run: Run, what: str) -> None:
        message = f"workflow {self.workflow_id!r}, run {run.state.run_id}, {what}"
        self.made.warnings.append(Warned(message, self.workflow_id, run.state.run_id))

    def _limit_requests(self, run: Run) -> None:
        """Forget the older half of the id's requests when there are too many: O(1) for each, on average."""
        store = self.partition.store
        if run.requests < 0:
            run.requests = store.count_requests(self.workflow_id)
        run.requests += len(self.requests)
        if run.requests > MAX_REQUESTS:
            forgotten = store.oldest_requests(self.workflow_id, keep=MAX_REQUESTS // 2)
            self.partition.chores += [Row(key, None) for key in forgotten]
            run.requests -= len(forgotten)

    def _wait(self, activity_id: int) -> None:
        assert self.run is not None
        found = self.run.state.activities.get(activity_id)
        if found is None or found.cancel_requested:
            return
        ref = ActivityRef(self.partition.number, self.workflow_id, self.run.state.run_id, activity_id)
        since_ms = max(found.scheduled_time_ms, found.retry_time_ms)
        self.made.waiting.append((ref, found.scheduled.task_queue, found.scheduled.priority, since_ms))


HANDLE: dict[type[Any], Callable[[_Builder, Input], None]] = {
    c.StartWorkflow: _Builder.on_start,
    c.SignalWorkflow: _Builder.on_client_command,
    c.CancelWorkflow: _Builder.on_client_command,
    c.TerminateWorkflow: _Builder.on_client_command,
    c.QueryWorkflow: _Builder.on_query,
    c.AwaitResult: _Builder.on_await,
    c.CompleteActivity: _Builder.on_report,
    c.FailActivity: _Builder.on_report,
    c.ReportActivityCanceled: _Builder.on_report,
    c.ReturnActivity: _Builder.on_report,
    Deadline: _Builder.on_deadline,
    DispatchOrder: _Builder.on_dispatch,
    LoseWorker: _Builder.on_lose_worker,
    RefusedDelivery: _Builder.on_refused_delivery,
    Resume: _Builder.on_resume,
}


def answers(command: c.CommandBase, reply: Reply) -> list[Answer]:
    """A reply, addressed to who sent the command; none if no answer was asked for."""
    if command.reply_to is None:
        return []
    client_id, request_id = command.reply_to.client_id, command.request_id
    return [
        Answer(command.reply_to, msgspec.structs.replace(reply, client_id=client_id, request_id=request_id))
    ]


def rejected(rejection: c.Rejection) -> Reply:
    """The answer to a refused command."""
    return Reply(
        client_id="",
        request_id="",
        rejection=rejection.reason,
        message=rejection.message,
        run_id=rejection.run_id,
    )


def result_reply(run_id: str, status: WorkflowStatus, close: e.Event | None) -> Reply:
    """The answer to somebody who awaits the result of a closed run."""
    return Reply(
        client_id="",
        request_id="",
        run_id=run_id,
        status=status.value,
        result=close.result if isinstance(close, e.WorkflowCompleted) else None,
        failure=execution.close_failure(close),
        tags=getattr(close, "tags", ()),
    )


def too_large(command: Any) -> c.Rejection | None:
    """Why a command's payloads are refused; None if they are small enough."""
    size = 0
    for name in _SIZED_OF[type(command)]:
        if value := getattr(command, name):
            size += _bytes_of(value)
    if size <= MAX_PAYLOAD_BYTES:
        return None
    return c.Rejection(
        reason="limit-exceeded",
        message=(
            f"the payloads of {type(command).__name__} have {size} bytes, at most {MAX_PAYLOAD_BYTES} are "
            f"allowed; store large data elsewhere and pass a reference"
        ),
    )


_SIZED = ("input", "result", "details", "failure", "memo", "search_attributes")
"""The fields of commands that hold what users say."""

_SIZED_OF: dict[type[c.CommandBase], tuple[str, ...]] = {
    kind: tuple(name for name in _SIZED if name in kind.__struct_fields__) for kind in c.Command.__args__
}


def _bytes_of(value: Any) -> int:
    if not value:
        return 0
    if isinstance(value, Payload):
        return len(value.data) + len(value.encoding)
    if isinstance(value, Failure):
        text = len(value.message.encode()) + len(value.stack.encode())
        return text + _bytes_of(value.details) + _bytes_of(value.cause)
    return sum([_bytes_of(part) for part in (value.values() if isinstance(value, dict) else value)])


def failed_instead(command: c.ActivityCommand, failure: Failure) -> c.FailActivity:
    """The report of a failure, in place of a result that cannot be taken."""
    return c.FailActivity(
        request_id=command.request_id,
        identity=command.identity,
        workflow_id=command.workflow_id,
        run_id=command.run_id,
        activity_id=command.activity_id,
        attempt=command.attempt,
        dispatch=command.dispatch,
        worker=command.worker,
        started_time_ms=command.started_time_ms,
        failure=failure,
    )


def failed_report(task: ActivityTask, failure: Failure) -> c.FailActivity:
    """The report of a failure that no worker saw."""
    return c.FailActivity(
        identity="engine",
        workflow_id=task.workflow_id,
        run_id=task.run_id,
        activity_id=task.activity_id,
        attempt=task.attempt,
        dispatch=task.dispatch,
        worker=task.worker,
        failure=failure,
    )


def refused_event(reason: str) -> WorkflowCodeError:
    """The code cannot go on, for an event of it cannot leave."""
    error = RecordRefused(f"the log refuses a business event: {reason}")
    return WorkflowCodeError(failures.to_failure(error, payloads.DEFAULT))


def block_failure(error: BaseException) -> Failure:
    """Why a run is blocked, as data."""
    if isinstance(error, WorkflowCodeError):
        return error.failure
    return failures.to_failure(_as_exception(error), payloads.DEFAULT)


def blocked_failure(run_id: str, blocked: Failure) -> Failure:
    """The answer to a query to a blocked run."""
    error = QueryFailed(f"run {run_id} is blocked and cannot answer: {blocked.type}: {blocked.message}")
    failure = failures.to_failure(error, payloads.DEFAULT)
    return msgspec.structs.replace(failure, cause=blocked)


def _as_exception(error: BaseException) -> BaseException:
    """An evicted activation, in words."""
    if not isinstance(error, Evicted):
        return error
    return NotDeterministic(
        "the workflow's code did not give way for more than 2 s; move the work into an activity"
    )
