"""The two functions that are the engine.

``decide(state, command, now)`` reads, and answers with events or a rejection. ``evolve(state, …)``
is the only writer of state; live runs, restores, views and replays share it. Both are tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.engine import activity, execution, timer
from orchestrator.engine.state import Changes, Deadline, DeadlineKind, RunState
from orchestrator.protocol import events as e
from orchestrator.protocol.commands import (
    CancelWorkflow,
    Command,
    CompleteActivity,
    FailActivity,
    Rejection,
    ReportActivityCanceled,
    ReturnActivity,
    SignalWorkflow,
    TerminateWorkflow,
)
from orchestrator.protocol.records import Activation, Turn

Decide = Callable[[RunState, Any, int], tuple[e.Event, ...]]
Evolve = Callable[[RunState, Any, int, int, Changes], None]

DECIDE: dict[type[Command], Decide] = {
    SignalWorkflow: execution.decide_signal,
    CancelWorkflow: execution.decide_cancel,
    TerminateWorkflow: execution.decide_terminate,
    CompleteActivity: activity.decide_complete,
    FailActivity: activity.decide_fail,
    ReportActivityCanceled: activity.decide_canceled,
    ReturnActivity: activity.decide_return,
}
"""Commands to an open run. A start is decided by ``execution.decide_start``, on the id's latest run."""

REPORTS = (CompleteActivity, FailActivity, ReportActivityCanceled, ReturnActivity)
"""Commands of workers: late ones change nothing and are not refused."""

DECIDE_DEADLINE: dict[DeadlineKind, Callable[[RunState, Deadline, int], tuple[e.Event, ...]]] = {
    DeadlineKind.RUN_TIMEOUT: execution.decide_deadline,
    DeadlineKind.TIMER: timer.decide_deadline,
    DeadlineKind.RETRY: activity.decide_deadline,
    DeadlineKind.SCHEDULE_TO_START: activity.decide_deadline,
    DeadlineKind.SCHEDULE_TO_CLOSE: activity.decide_deadline,
    DeadlineKind.START_TO_CLOSE: activity.decide_deadline,
}

EVOLVE: dict[type[e.Event], Evolve] = {
    e.WorkflowStarted: execution.evolve_started,
    e.WorkflowSignaled: execution.evolve_fact,
    e.WorkflowCancelRequested: execution.evolve_fact,
    e.WorkflowBlocked: execution.evolve_blocked,
    e.WorkflowUnblocked: execution.evolve_unblocked,
    e.WorkflowCompleted: execution.evolve_closed,
    e.WorkflowFailed: execution.evolve_closed,
    e.WorkflowCanceled: execution.evolve_closed,
    e.WorkflowTerminated: execution.evolve_closed,
    e.WorkflowTimedOut: execution.evolve_closed,
    e.ActivityScheduled: activity.evolve_scheduled,
    e.ActivitiesDispatched: activity.evolve_dispatched,
    e.ActivityAttemptFailed: activity.evolve_attempt_failed,
    e.ActivityReturned: activity.evolve_returned,
    e.ActivityCancelRequested: activity.evolve_cancel_requested,
    e.ActivityCompleted: activity.evolve_closed,
    e.ActivityFailed: activity.evolve_closed,
    e.ActivityTimedOut: activity.evolve_closed,
    e.ActivityCanceled: activity.evolve_closed,
    e.TimerStarted: timer.evolve_started,
    e.TimerFired: timer.evolve_ended,
    e.TimerCanceled: timer.evolve_ended,
}
"""Events that change state; the others (abandoned deliveries, published events, unknown kinds) are for
others to read."""


def decide(state: RunState | None, command: Command, now_ms: int) -> tuple[e.Event, ...] | Rejection:
    """Events that follow from a command to the latest run of its id; none if it changes nothing.

    ``state`` is None if the id was never used.
    """
    if isinstance(command, REPORTS):
        if state is None or not state.is_open or state.run_id != command.run_id:
            return ()
    elif (rejection := why_not(state, command)) is not None:
        return rejection
    assert state is not None
    return DECIDE[type(command)](state, command, now_ms)


def why_not(state: RunState | None, command: Any) -> Rejection | None:
    """Why a client's command cannot reach an open run; None if it can."""
    workflow_id, run_id = command.workflow_id, command.run_id
    if state is None or (run_id and state.run_id != run_id):
        wanted = f"run {run_id} of workflow id {workflow_id!r}" if run_id else f"workflow id {workflow_id!r}"
        found = "the id is unknown" if state is None else f"the id's current run is {state.run_id}"
        return Rejection(
            reason="workflow-not-found",
            message=f"there is no open {wanted}: {found}",
            run_id=run_id,
        )
    if not state.is_open:
        return Rejection(
            reason="workflow-closed",
            message=f"workflow id {workflow_id!r} is closed: run {state.run_id} is {state.status.value}",
            run_id=state.run_id,
        )
    return None


def decide_deadline(state: RunState, deadline: Deadline, now_ms: int) -> tuple[e.Event, ...]:
    """Events that follow from a deadline that has come; none if it no longer stands."""
    if not state.is_open:
        return ()
    return DECIDE_DEADLINE[deadline.kind](state, deadline, now_ms)


def evolve_events(state: RunState, events: Sequence[e.Event], time_ms: int, changes: Changes) -> None:
    """Apply events in order, as the next ones of the run. The only writer of state."""
    for event in events:
        apply = EVOLVE.get(type(event))
        if apply is not None:
            if state.close is not None:
                raise ValueError(f"run {state.run_id} is closed: {event!r} is impossible")
            apply(state, event, state.next_event_id, time_ms, changes)
        state.next_event_id += 1
    state.time_ms = time_ms


def end_turn(state: RunState, activation: Activation) -> None:
    """Close the turn whose events were applied, and note whether its facts wait for the code."""
    state.turn += 1
    if activation is Activation.DONE or not state.is_open:
        state.deferred_from = 0
    elif activation is Activation.DEFERRED and not state.deferred_from:
        state.deferred_from = state.turn


def evolve(state: RunState | None, turn: Turn, changes: Changes) -> RunState:
    """Apply a whole turn; ``state`` None for a run's first. Raises ``ValueError`` for an impossible turn."""
    if state is None:
        first = turn.events[0]
        if turn.turn != 1 or not isinstance(first, e.WorkflowStarted):
            raise ValueError(f"run {turn.run_id} begins with turn {turn.turn}: {type(first).__name__}")
        state = execution.new_run(turn.workflow_id, turn.run_id, first, turn.time_ms, turn.headers)
    if turn.turn != state.turn + 1 or turn.first_event_id != state.next_event_id:
        raise ValueError(
            f"run {turn.run_id} is at turn {state.turn}, event {state.next_event_id - 1}; "
            f"found turn {turn.turn}, event {turn.first_event_id}"
        )
    evolve_events(state, turn.events, turn.time_ms, changes)
    end_turn(state, turn.activation)
    return state
