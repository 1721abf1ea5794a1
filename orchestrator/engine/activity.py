"""The life of an activity: scheduled, dispatched, tried again, closed.

``decide_*`` read the state and return events; ``evolve_*`` are the only writers. A closed activity
leaves the state.
"""

from __future__ import annotations

from orchestrator.engine.state import (
    ActivityPhase,
    ActivityState,
    Changes,
    Deadline,
    DeadlineKind,
    RunState,
    time_after,
)
from orchestrator.protocol.commands import (
    ActivityCommand,
    CompleteActivity,
    FailActivity,
    ReportActivityCanceled,
    ReturnActivity,
)
from orchestrator.protocol.events import (
    ActivitiesAbandoned,
    ActivitiesDispatched,
    ActivityAttemptFailed,
    ActivityCanceled,
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityReturned,
    ActivityScheduled,
    ActivityTimedOut,
    Dispatch,
    Event,
)
from orchestrator.protocol.values import Failure, FailureKind, RetryPolicy, RetryState, TimeoutType

WAITING, DISPATCHED, BACKOFF = ActivityPhase.WAITING, ActivityPhase.DISPATCHED, ActivityPhase.BACKOFF

TRANSITIONS: dict[tuple[ActivityPhase | None, type[Event]], tuple[ActivityPhase | None, ...]] = {
    (None, ActivityScheduled): (WAITING, DISPATCHED),
    (WAITING, ActivitiesDispatched): (DISPATCHED,),
    (BACKOFF, ActivitiesDispatched): (DISPATCHED,),
    (DISPATCHED, ActivityReturned): (WAITING,),
    (DISPATCHED, ActivityAttemptFailed): (BACKOFF,),
    (WAITING, ActivityCancelRequested): (WAITING,),
    (BACKOFF, ActivityCancelRequested): (BACKOFF,),
    (DISPATCHED, ActivityCancelRequested): (DISPATCHED,),
    (DISPATCHED, ActivityCompleted): (None,),
    (DISPATCHED, ActivityFailed): (None,),
    (WAITING, ActivityTimedOut): (None,),
    (BACKOFF, ActivityTimedOut): (None,),
    (DISPATCHED, ActivityTimedOut): (None,),
    (WAITING, ActivityCanceled): (None,),
    (BACKOFF, ActivityCanceled): (None,),
    (DISPATCHED, ActivityCanceled): (None,),
}
"""(phase, event) → the phases it may lead to. None is an activity that is not open."""

DEFAULT_MAXIMUM_INTERVAL_FACTOR = 100
"""Temporal's: the delay between attempts grows to at most 100 times the initial one."""

MAX_DISPATCHES_PER_EVENT = 500
"""Keeps an event of a large fan-out near 50 KiB."""


def retry_delay_ms(policy: RetryPolicy, attempt: int) -> int:
    """The delay after ``attempt`` (from 1) failed, before the next one."""
    maximum_ms = policy.maximum_interval_ms
    if maximum_ms is None:
        maximum_ms = policy.initial_interval_ms * DEFAULT_MAXIMUM_INTERVAL_FACTOR
    try:
        delay_ms = policy.initial_interval_ms * policy.backoff_coefficient ** (attempt - 1)
    except OverflowError:
        return maximum_ms
    return int(min(delay_ms, maximum_ms))


# ------------------------------------------------------------------------------------------ decide


def open_attempt(state: RunState, command: ActivityCommand) -> ActivityState | None:
    """The activity whose open delivery the command reports on; None if that delivery is not open."""
    activity = state.activities.get(command.activity_id)
    if activity is None or activity.phase is not DISPATCHED:
        return None
    if (activity.attempt, activity.dispatch) != (command.attempt, command.dispatch):
        return None
    return activity


def decide_complete(state: RunState, command: CompleteActivity, now_ms: int) -> tuple[Event, ...]:
    """Only the open delivery's result is accepted; late ones change nothing."""
    if open_attempt(state, command) is None:
        return ()
    return (
        ActivityCompleted(
            activity_id=command.activity_id,
            result=command.result,
            attempt=command.attempt,
            worker=command.worker,
            started_time_ms=command.started_time_ms,
        ),
    )


def decide_fail(state: RunState, command: FailActivity, now_ms: int) -> tuple[Event, ...]:
    """A failed attempt is tried again as the policy says, else it closes the activity."""
    activity = open_attempt(state, command)
    if activity is None:
        return ()
    return (attempt_failed(activity, command.failure, now_ms, command.started_time_ms),)


def decide_canceled(state: RunState, command: ReportActivityCanceled, now_ms: int) -> tuple[Event, ...]:
    """The worker says that it stopped the attempt because it was asked to."""
    activity = open_attempt(state, command)
    if activity is None:
        return ()
    if not activity.cancel_requested:
        failure = Failure(
            kind=FailureKind.CANCELED, message="the activity was cancelled by its worker, not by the workflow"
        )
        return (attempt_failed(activity, failure, now_ms, command.started_time_ms),)
    return (
        ActivityCanceled(activity_id=command.activity_id, details=command.details, attempt=command.attempt),
    )


def decide_return(state: RunState, command: ReturnActivity, now_ms: int) -> tuple[Event, ...]:
    """A delivery that the worker did not start is no attempt: it is dispatched again."""
    activity = open_attempt(state, command)
    if activity is None:
        return ()
    if activity.cancel_requested:
        return (ActivityCanceled(activity_id=activity.activity_id, attempt=activity.attempt),)
    return (
        ActivityReturned(
            activity_id=command.activity_id,
            attempt=command.attempt,
            dispatch=command.dispatch,
            worker=command.worker,
            reason=command.reason,
        ),
    )


def decide_worker_lost(state: RunState, worker: str, now_ms: int) -> tuple[Event, ...]:
    """All open attempts on a lost worker have failed; they are tried again at once."""
    failure = Failure(
        kind=FailureKind.WORKER_LOST,
        type="WorkerLost",
        message=f"worker {worker} stopped beating while it ran the attempt",
        next_retry_delay_ms=0,
    )
    return tuple(
        attempt_failed(activity, failure, now_ms)
        for activity in state.activities.values()
        if activity.phase is DISPATCHED and activity.worker == worker
    )


def decide_deadline(state: RunState, deadline: Deadline, now_ms: int) -> tuple[Event, ...]:
    """A deadline of an activity has come. One that no longer stands changes nothing."""
    activity = state.activities.get(deadline.id)
    if activity is None or deadline not in deadlines_of(activity):
        return ()
    if deadline.kind is DeadlineKind.START_TO_CLOSE:
        limit_ms = activity.scheduled.start_to_close_ms
        failure = Failure(
            kind=FailureKind.TIMEOUT,
            type="Timeout",
            timeout_type=TimeoutType.START_TO_CLOSE,
            message=f"attempt {activity.attempt} did not finish within {limit_ms} ms (start-to-close)",
        )
        return (attempt_failed(activity, failure, now_ms),)
    if deadline.kind is DeadlineKind.RETRY:
        return ()
    return (timed_out(activity, TimeoutType(deadline.kind.value)),)


def timed_out(activity: ActivityState, timeout_type: TimeoutType) -> ActivityTimedOut:
    """The activity ran into a timeout after which there is no other attempt."""
    scheduled = activity.scheduled
    limit_ms = {
        TimeoutType.SCHEDULE_TO_START: scheduled.schedule_to_start_ms,
        TimeoutType.SCHEDULE_TO_CLOSE: scheduled.schedule_to_close_ms,
    }[timeout_type]
    words = {
        TimeoutType.SCHEDULE_TO_START: f"no worker of queue {scheduled.task_queue!r} took it",
        TimeoutType.SCHEDULE_TO_CLOSE: "it was not done",
    }[timeout_type]
    return ActivityTimedOut(
        activity_id=activity.activity_id,
        attempt=activity.attempt,
        retry_state=RetryState.TIMEOUT,
        failure=Failure(
            kind=FailureKind.TIMEOUT,
            type="Timeout",
            timeout_type=timeout_type,
            message=f"{words} within {limit_ms} ms ({timeout_type.value})",
            cause=activity.last_failure,
        ),
    )


def attempt_failed(activity: ActivityState, failure: Failure, now_ms: int, started_time_ms: int = 0) -> Event:
    """Another attempt, or the end: the one place that decides on retries."""
    scheduled = activity.scheduled
    policy = scheduled.retry_policy
    retry_state: RetryState | None = None
    delay_ms = failure.next_retry_delay_ms
    if delay_ms is None:
        delay_ms = retry_delay_ms(policy, activity.attempt)
    retry_time_ms = time_after(now_ms, delay_ms)
    if activity.cancel_requested:
        retry_state = RetryState.CANCEL_REQUESTED
    elif not is_retryable(failure, policy):
        retry_state = RetryState.NON_RETRYABLE_FAILURE
    elif policy.maximum_attempts and activity.attempt >= policy.maximum_attempts:
        retry_state = RetryState.MAXIMUM_ATTEMPTS_REACHED
    elif scheduled.schedule_to_close_ms is not None and (
        retry_time_ms >= activity.scheduled_time_ms + scheduled.schedule_to_close_ms
    ):
        retry_state = RetryState.TIMEOUT
    if retry_state is None:
        return ActivityAttemptFailed(
            activity_id=activity.activity_id,
            attempt=activity.attempt,
            failure=failure,
            retry_time_ms=retry_time_ms,
            worker=activity.worker,
            started_time_ms=started_time_ms,
        )
    if failure.kind is FailureKind.TIMEOUT:
        return ActivityTimedOut(
            activity_id=activity.activity_id,
            attempt=activity.attempt,
            failure=failure,
            retry_state=retry_state,
        )
    return ActivityFailed(
        activity_id=activity.activity_id,
        attempt=activity.attempt,
        failure=failure,
        retry_state=retry_state,
        worker=activity.worker,
        started_time_ms=started_time_ms,
    )


def is_retryable(failure: Failure, policy: RetryPolicy) -> bool:
    """Whether a failure of this kind and type may be tried again."""
    if failure.non_retryable or failure.kind in (FailureKind.CANCELED, FailureKind.TERMINATED):
        return False
    return failure.type not in policy.non_retryable_error_types


def decide_cancel_request(activity: ActivityState) -> ActivityCancelRequested:
    """The code cancels an open activity; the worker that has it, if any, is told."""
    return ActivityCancelRequested(
        activity_id=activity.activity_id,
        attempt=activity.attempt,
        dispatch=activity.dispatch,
        worker=activity.worker if activity.phase is DISPATCHED else "",
        inbox=activity.inbox,
    )


def decide_settle(state: RunState) -> tuple[Event, ...]:
    """Activities that were cancelled while no worker had them are closed: facts of the next turn."""
    return tuple(
        ActivityCanceled(activity_id=activity.activity_id, attempt=activity.attempt)
        for activity in state.activities.values()
        if activity.cancel_requested and activity.phase is not DISPATCHED
    )


def decide_dispatch(
    state: RunState, wanted: tuple[tuple[int, str, int], ...]
) -> tuple[ActivitiesDispatched, ...]:
    """Send waiting activities to workers; ``wanted`` are (activity id, worker, inbox partition)."""
    dispatches = []
    for activity_id, worker, inbox in wanted:
        activity = state.activities.get(activity_id)
        if activity is None or activity.phase is DISPATCHED or activity.cancel_requested:
            continue
        dispatches.append(_delivery(activity, worker, inbox, activity.dispatch + 1))
    return tuple(
        ActivitiesDispatched(dispatches=tuple(dispatches[i : i + MAX_DISPATCHES_PER_EVENT]))
        for i in range(0, len(dispatches), MAX_DISPATCHES_PER_EVENT)
    )


def decide_abandon(state: RunState) -> tuple[Event, ...]:
    """The run closes: name the deliveries that are with workers, so that they are told to stop."""
    dispatches = [
        _delivery(activity, activity.worker, activity.inbox, activity.dispatch)
        for activity in state.activities.values()
        if activity.phase is DISPATCHED and not activity.cancel_requested
    ]
    return tuple(
        ActivitiesAbandoned(dispatches=tuple(dispatches[i : i + MAX_DISPATCHES_PER_EVENT]))
        for i in range(0, len(dispatches), MAX_DISPATCHES_PER_EVENT)
    )


def _delivery(activity: ActivityState, worker: str, inbox: int, dispatch: int) -> Dispatch:
    return Dispatch(
        activity_id=activity.activity_id,
        scheduled_event_id=activity.scheduled_event_id,
        attempt=activity.attempt,
        dispatch=dispatch,
        worker=worker,
        inbox=inbox,
    )


# ------------------------------------------------------------------------------------------ evolve


def deadlines_of(activity: ActivityState) -> list[Deadline]:
    """The deadlines that stand for an open activity, derived from its phase."""
    scheduled, found = activity.scheduled, []
    if scheduled.schedule_to_close_ms is not None:
        at_ms = time_after(activity.scheduled_time_ms, scheduled.schedule_to_close_ms)
        found.append(Deadline(at_ms, DeadlineKind.SCHEDULE_TO_CLOSE, activity.activity_id))
    if activity.phase is DISPATCHED:
        if scheduled.start_to_close_ms is not None:
            at_ms = time_after(activity.dispatched_time_ms, scheduled.start_to_close_ms)
            found.append(Deadline(at_ms, DeadlineKind.START_TO_CLOSE, activity.activity_id))
        return found
    if activity.phase is BACKOFF:
        found.append(Deadline(activity.retry_time_ms, DeadlineKind.RETRY, activity.activity_id))
    if scheduled.schedule_to_start_ms is not None:
        waits_from_ms = activity.retry_time_ms or activity.scheduled_time_ms
        at_ms = time_after(waits_from_ms, scheduled.schedule_to_start_ms)
        found.append(Deadline(at_ms, DeadlineKind.SCHEDULE_TO_START, activity.activity_id))
    return found


def _found(state: RunState, activity_id: int, event: Event) -> ActivityState:
    """The open activity that an event concerns, if the table has a row for that."""
    activity = state.activities.get(activity_id)
    if activity is None or (activity.phase, type(event)) not in TRANSITIONS:
        phase = activity.phase.value if activity is not None else "not open"
        raise ValueError(f"activity {activity_id} of run {state.run_id} is {phase}: {event!r} is impossible")
    return activity


def _move(activity: ActivityState, phase: ActivityPhase, changes: Changes) -> None:
    """Change the phase; account for slots and waiting."""
    if activity.phase is DISPATCHED and phase is not DISPATCHED:
        changes.freed.append((activity.worker, activity.activity_id))
    elif phase is DISPATCHED and activity.phase is not DISPATCHED:
        changes.taken.append((activity.worker, activity.activity_id))
    if phase is WAITING:
        changes.waiting.append(activity.activity_id)
    activity.phase = phase


def evolve_scheduled(
    state: RunState, event: ActivityScheduled, event_id: int, time_ms: int, changes: Changes
) -> None:
    """An activity is open from here on."""
    if event.activity_id in state.activities:
        raise ValueError(f"activity {event.activity_id} of run {state.run_id} is open already: {event!r}")
    activity = ActivityState(
        activity_id=event.activity_id,
        scheduled_event_id=event_id,
        scheduled_time_ms=time_ms,
        scheduled=event,
        phase=WAITING,
    )
    state.activities[event.activity_id] = activity
    if event.worker:
        activity.phase = DISPATCHED
        activity.dispatch = 1
        activity.worker, activity.inbox = event.worker, event.inbox
        activity.dispatched_time_ms = time_ms
        changes.taken.append((event.worker, event.activity_id))
    else:
        changes.waiting.append(event.activity_id)
    changes.deadlines_set.extend(deadlines_of(activity))


def evolve_dispatched(
    state: RunState, event: ActivitiesDispatched, event_id: int, time_ms: int, changes: Changes
) -> None:
    """Attempts went to workers."""
    for dispatch in event.dispatches:
        activity = _found(state, dispatch.activity_id, event)
        before = deadlines_of(activity)
        activity.worker, activity.inbox = dispatch.worker, dispatch.inbox
        _move(activity, DISPATCHED, changes)
        activity.attempt, activity.dispatch = dispatch.attempt, dispatch.dispatch
        activity.dispatched_time_ms = time_ms
        _replace(before, deadlines_of(activity), changes)


def evolve_attempt_failed(
    state: RunState, event: ActivityAttemptFailed, event_id: int, time_ms: int, changes: Changes
) -> None:
    """The next attempt is due at the event's retry time."""
    activity = _found(state, event.activity_id, event)
    before = deadlines_of(activity)
    _move(activity, BACKOFF, changes)
    activity.attempt = event.attempt + 1
    activity.last_failure = event.failure
    activity.retry_time_ms = event.retry_time_ms
    _replace(before, deadlines_of(activity), changes)


def evolve_returned(
    state: RunState, event: ActivityReturned, event_id: int, time_ms: int, changes: Changes
) -> None:
    """The same attempt waits for a worker again."""
    activity = _found(state, event.activity_id, event)
    before = deadlines_of(activity)
    _move(activity, WAITING, changes)
    _replace(before, deadlines_of(activity), changes)


def evolve_cancel_requested(
    state: RunState, event: ActivityCancelRequested, event_id: int, time_ms: int, changes: Changes
) -> None:
    """There will be no further attempt."""
    _found(state, event.activity_id, event).cancel_requested = True


def evolve_closed(
    state: RunState,
    event: ActivityCompleted | ActivityFailed | ActivityTimedOut | ActivityCanceled,
    event_id: int,
    time_ms: int,
    changes: Changes,
) -> None:
    """The activity is over and leaves the state."""
    forget(_found(state, event.activity_id, event), changes)
    del state.activities[event.activity_id]


def forget(activity: ActivityState, changes: Changes) -> None:
    """Account for an activity that leaves the state."""
    changes.deadlines_cleared.extend(deadlines_of(activity))
    if activity.phase is DISPATCHED:
        changes.freed.append((activity.worker, activity.activity_id))
    else:
        changes.gone.append(activity.activity_id)


def _replace(before: list[Deadline], after: list[Deadline], changes: Changes) -> None:
    changes.deadlines_cleared.extend(deadline for deadline in before if deadline not in after)
    changes.deadlines_set.extend(deadline for deadline in after if deadline not in before)
