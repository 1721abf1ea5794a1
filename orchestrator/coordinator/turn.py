"""The one place where rules meet user code: the inputs of a workflow id become turns.

Recording a fact and running code are two things. The inputs of one id in one step form one turn:
decide each, evolve, tell the instance all new facts once, translate what it did, evolve. A turn ends
before a command that must see what the code made of the earlier ones (a start, a termination, a query)
and after anything that closes the run. Facts of a run whose code cannot be told now (it is blocked, or
being replayed in slices) are recorded as deferred, and told later, in order, in one activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from orchestrator.codec import failures, payloads
from orchestrator.coordinator.caution import ProcessEnded
from orchestrator.coordinator.dispatch import ActivityRef, Dispatcher
from orchestrator.coordinator.drafts import (
    Answer,
    DispatchOrder,
    Draft,
    Input,
    LoseWorker,
    Made,
    RefusedDelivery,
    Resume,
    Warned,
)
from orchestrator.coordinator.outflow import Receipt
from orchestrator.coordinator.replies import (
    answers,
    failed_instead,
    failed_report,
    rejected,
    result_reply,
    too_large,
)
from orchestrator.coordinator.runs import Definitions, Run
from orchestrator.coordinator.runtime import PYTHON_VERSION, Runtime, new_id
from orchestrator.coordinator.user_code import (
    CODE_ERRORS,
    Host,
    UserCode,
    as_exception,
    block_failure,
    blocked_failure,
)
from orchestrator.coordinator.watchdog import Watch
from orchestrator.engine import activity, decider, execution, translate
from orchestrator.engine.state import ActivityPhase, Changes, Deadline, DeadlineKind
from orchestrator.errors import (
    CommandRejected,
    InvalidArguments,
    PayloadError,
    QueryFailed,
    UnknownName,
)
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.actions import Action, ScheduleActivity
from orchestrator.protocol.records import Activation, Cause
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import Failure, FailureKind
from orchestrator.store.refusals import Refusals
from orchestrator.store.rows import Row, encode_state
from orchestrator.store.summaries import glance_of
from orchestrator.telemetry.traces import Traces
from orchestrator.workflow.loop import Evicted

MAX_REQUESTS = 20_000
"""Request ids kept per workflow id, those of its earlier runs too. Repeats come within seconds or minutes."""

MAX_SETTLES = 10
"""Turns in a row, in one step, in which code asks to cancel what waits and is told that it is canceled. Code
may do that for ever; others shall not wait for it."""


class Partition(Host, Protocol):
    """What making turns needs of a partition."""

    number: int
    refusals: Refusals
    chores: list[Row]
    """Rows for the store that belong to no turn; written with the next batch."""

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
        self.definitions = definitions
        self.dispatcher = dispatcher
        self.runtime = runtime
        self.code = UserCode(definitions, dispatcher, runtime, watch, refusal_of_topic)

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
            if not (why := self.maker.code.why_unfit(self.partition, run, handler, command.input)):
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
            answer = self.maker.code.ask(self.partition, run, command.query_name, command.input, self.made)
        except CommandRejected as error:
            refused = c.Rejection(reason=error.reason, message=str(error), run_id=state.run_id)
            return rejected(refused)
        except (QueryFailed, *CODE_ERRORS) as error:
            if run.instance is None or not run.instance.usable:  # it stopped halfway, or is not as it was
                self.partition.runs.drop(run)
            failure = failures.to_failure(as_exception(error), payloads.DEFAULT)
            return msgspec.structs.replace(reply, failure=failure)
        return msgspec.structs.replace(reply, result=answer) if answer is not None else None

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
            self.partition.retries.over(state.run_id)
            self.partition.runs.drop(run)
            return Activation.NONE
        facts = e.facts_of(self.events)
        if not facts and not self.resume:
            return Activation.NONE
        held_back = state.run_id in self.partition.held_back
        if not (facts or state.deferred_from or state.blocked is not None or held_back):
            return Activation.NONE
        try:
            before = self.first_event_id - 1
            actions = self.maker.code.tell(
                self.partition, run, facts, self.now_ms, history_events=before, made=self.made
            )
        except CODE_ERRORS as error:
            self._block(run, error)
            actions = None
        if actions is None:
            return Activation.DEFERRED if facts else Activation.NONE
        if state.blocked is not None:
            self._note(e.WorkflowUnblocked())
            self.partition.retries.over(state.run_id)
        self._translate(run, actions)
        return Activation.DONE

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

    def _block(self, run: Run, error: BaseException) -> None:
        """The code cannot go on: say why, once per reason, and try again later."""
        self.partition.runs.drop(run)
        self.made.evicted += isinstance(error, Evicted)
        now_s = self.maker.runtime.monotonic_s()
        self.partition.retries.blocked(run.state.run_id, self.workflow_id, now_s)
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
