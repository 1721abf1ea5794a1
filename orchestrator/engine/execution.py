"""The life of a run: started, signaled, blocked and unblocked, closed."""

from __future__ import annotations

from orchestrator.engine import activity
from orchestrator.engine.state import Changes, Deadline, DeadlineKind, RunState, time_after
from orchestrator.protocol.commands import (
    CancelWorkflow,
    Rejection,
    SignalWorkflow,
    StartWorkflow,
    TerminateWorkflow,
)
from orchestrator.protocol.events import (
    CLOSES,
    Event,
    RunFlags,
    WorkflowBlocked,
    WorkflowCanceled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowSignaled,
    WorkflowStarted,
    WorkflowTerminated,
    WorkflowTimedOut,
    WorkflowUnblocked,
)
from orchestrator.protocol.traces import NO_TRACE
from orchestrator.protocol.values import Failure, FailureKind, IdReusePolicy, TimeoutType, WorkflowStatus

RUNNING, BLOCKED = WorkflowStatus.RUNNING, WorkflowStatus.BLOCKED

TRANSITIONS: dict[tuple[WorkflowStatus | None, type[Event]], WorkflowStatus] = {
    (None, WorkflowStarted): RUNNING,
    (RUNNING, WorkflowSignaled): RUNNING,
    (BLOCKED, WorkflowSignaled): BLOCKED,
    (RUNNING, WorkflowCancelRequested): RUNNING,
    (BLOCKED, WorkflowCancelRequested): BLOCKED,
    (RUNNING, WorkflowBlocked): BLOCKED,
    (BLOCKED, WorkflowBlocked): BLOCKED,
    (BLOCKED, WorkflowUnblocked): RUNNING,
    (RUNNING, WorkflowCompleted): WorkflowStatus.COMPLETED,
    (RUNNING, WorkflowFailed): WorkflowStatus.FAILED,
    (RUNNING, WorkflowCanceled): WorkflowStatus.CANCELED,
    (RUNNING, WorkflowTerminated): WorkflowStatus.TERMINATED,
    (BLOCKED, WorkflowTerminated): WorkflowStatus.TERMINATED,
    (RUNNING, WorkflowTimedOut): WorkflowStatus.TIMED_OUT,
    (BLOCKED, WorkflowTimedOut): WorkflowStatus.TIMED_OUT,
}
"""(status, event) → status. None is a run that does not exist yet."""

MAX_EVENTS = 51_200
"""Temporal's: a run with more events is terminated, for its replay would take too long."""

WARN_EVENTS = 10_240
"""Temporal's: from here on the run is worth a warning."""

_SUCCEEDED = WorkflowStatus.COMPLETED


# ------------------------------------------------------------------------------------------ decide


def decide_start(
    latest: RunState | None, command: StartWorkflow, now_ms: int, flags: RunFlags
) -> tuple[Event, ...] | Rejection:
    """Start a run of an id whose latest run is given, if its policy allows it."""
    if latest is not None and (reason := _why_not_start(latest, command)):
        return Rejection(
            reason="workflow-already-started",
            message=f"workflow id {command.workflow_id!r} {reason}",
            run_id=latest.run_id,
        )
    return (
        WorkflowStarted(
            workflow_type=command.workflow_type,
            input=command.input,
            run_timeout_ms=command.run_timeout_ms,
            identity=command.identity,
            flags=flags,
            memo=command.memo,
            search_attributes=command.search_attributes,
            summary=command.summary,
        ),
    )


def _why_not_start(latest: RunState, command: StartWorkflow) -> str:
    if latest.is_open:
        return f"is in use by the open run {latest.run_id}; wait for it to close, or use another id"
    policy = command.id_reuse_policy
    if policy is IdReusePolicy.REJECT_DUPLICATE:
        return f"was used by run {latest.run_id}, and the reuse policy is {policy.value}; use another id"
    if policy is IdReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY and latest.status is _SUCCEEDED:
        return f"was used by run {latest.run_id}, which completed, and the reuse policy is {policy.value}"
    return ""


def decide_signal(state: RunState, command: SignalWorkflow, now_ms: int) -> tuple[Event, ...]:
    """A signal is a fact, whether the code has a handler for it or not."""
    return (
        WorkflowSignaled(signal_name=command.signal_name, input=command.input, identity=command.identity),
    )


def decide_cancel(state: RunState, command: CancelWorkflow, now_ms: int) -> tuple[Event, ...]:
    """The first request counts; others change nothing."""
    if state.cancel_requested:
        return ()
    return (WorkflowCancelRequested(reason=command.reason, identity=command.identity),)


def decide_terminate(state: RunState, command: TerminateWorkflow, now_ms: int) -> tuple[Event, ...]:
    """Closes the run at once."""
    return (
        *activity.decide_abandon(state),
        WorkflowTerminated(reason=command.reason, details=command.details, identity=command.identity),
    )


def decide_deadline(state: RunState, deadline: Deadline, now_ms: int) -> tuple[Event, ...]:
    """The run timeout passed."""
    if state.run_deadline_ms != deadline.at_ms:
        return ()
    failure = Failure(
        kind=FailureKind.TIMEOUT,
        type="Timeout",
        timeout_type=TimeoutType.RUN,
        message=f"the run was not closed {state.run_deadline_ms - state.start_time_ms} ms after its start",
    )
    return (*activity.decide_abandon(state), WorkflowTimedOut(failure=failure))


def decide_limits(state: RunState) -> tuple[Event, ...]:
    """A run with too many events is terminated by the engine."""
    if not state.is_open or state.next_event_id - 1 <= MAX_EVENTS:
        return ()
    reason = (
        f"the run has {state.next_event_id - 1} events, more than the limit of {MAX_EVENTS}; "
        f"split the work over several workflows"
    )
    return (*activity.decide_abandon(state), WorkflowTerminated(reason=reason, identity="engine"))


# ------------------------------------------------------------------------------------------ evolve


def new_run(
    workflow_id: str, run_id: str, event: WorkflowStarted, time_ms: int, headers: dict[str, str] = NO_TRACE
) -> RunState:
    """The state before a run's first event. ``headers`` are those of its turns."""
    return RunState(
        workflow_id=workflow_id,
        run_id=run_id,
        workflow_type=event.workflow_type,
        status=RUNNING,
        start_time_ms=time_ms,
        time_ms=time_ms,
        headers=headers,
    )


def evolve_started(
    state: RunState, event: WorkflowStarted, event_id: int, time_ms: int, changes: Changes
) -> None:
    """The run is open from here on."""
    if event_id != 1:
        raise ValueError(f"run {state.run_id} has event {event_id - 1}: {event!r} is impossible")
    if event.run_timeout_ms is not None:
        state.run_deadline_ms = time_after(time_ms, event.run_timeout_ms)
        changes.deadlines_set.append(Deadline(state.run_deadline_ms, DeadlineKind.RUN_TIMEOUT, 0))


def evolve_fact(
    state: RunState,
    event: WorkflowSignaled | WorkflowCancelRequested,
    event_id: int,
    time_ms: int,
    changes: Changes,
) -> None:
    """Signals concern the code alone; a request to cancel is remembered."""
    state.status = _next_status(state, event)
    if isinstance(event, WorkflowCancelRequested):
        state.cancel_requested = True


def evolve_blocked(
    state: RunState, event: WorkflowBlocked, event_id: int, time_ms: int, changes: Changes
) -> None:
    """The code cannot go on."""
    state.status = _next_status(state, event)
    state.blocked = event.failure


def evolve_unblocked(
    state: RunState, event: WorkflowUnblocked, event_id: int, time_ms: int, changes: Changes
) -> None:
    """The code went on."""
    state.status = _next_status(state, event)
    state.blocked = None


def evolve_closed(
    state: RunState,
    event: WorkflowCompleted | WorkflowFailed | WorkflowCanceled | WorkflowTerminated | WorkflowTimedOut,
    event_id: int,
    time_ms: int,
    changes: Changes,
) -> None:
    """The run is closed: nothing of it is open any more."""
    state.status = _next_status(state, event)
    state.close, state.close_time_ms = event, time_ms
    state.blocked, state.deferred_from = None, 0
    for open_activity in state.activities.values():
        activity.forget(open_activity, changes)
    for timer_id, at_ms in state.timers.items():
        changes.deadlines_cleared.append(Deadline(at_ms, DeadlineKind.TIMER, timer_id))
    if state.run_deadline_ms:
        changes.deadlines_cleared.append(Deadline(state.run_deadline_ms, DeadlineKind.RUN_TIMEOUT, 0))
    state.activities.clear()
    state.timers.clear()


def _next_status(state: RunState, event: Event) -> WorkflowStatus:
    status = TRANSITIONS.get((state.status, type(event)))
    if status is None:
        raise ValueError(f"run {state.run_id} is {state.status.value}: {event!r} is impossible")
    return status


def deadlines_of(state: RunState) -> list[Deadline]:
    """All deadlines that stand for a run, derived from its state; none if it is closed."""
    if not state.is_open:
        return []
    found = [due for one in state.activities.values() for due in activity.deadlines_of(one)]
    found += [Deadline(at_ms, DeadlineKind.TIMER, timer_id) for timer_id, at_ms in state.timers.items()]
    if state.run_deadline_ms:
        found.append(Deadline(state.run_deadline_ms, DeadlineKind.RUN_TIMEOUT, 0))
    return found


def close_failure(close: Event | None) -> Failure | None:
    """Why a run closed without a result, as a failure; None if it completed or is open."""
    if close is None or isinstance(close, WorkflowCompleted):
        return None
    if isinstance(close, WorkflowFailed | WorkflowTimedOut):
        return close.failure
    if isinstance(close, WorkflowTerminated):
        return Failure(
            kind=FailureKind.TERMINATED,
            message=close.reason or "the workflow was terminated",
            details=close.details,
        )
    details = close.details if isinstance(close, WorkflowCanceled) else ()
    return Failure(kind=FailureKind.CANCELED, message="the workflow was cancelled", details=details)


assert set(CLOSES) == {event for status, event in TRANSITIONS if not TRANSITIONS[status, event].is_open}
