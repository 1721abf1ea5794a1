"""Actions become events; in a replay, events are held against actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.engine import activity
from orchestrator.engine.state import RunState, time_after
from orchestrator.protocol import actions as a
from orchestrator.protocol import events as e

Pick = Callable[[a.ScheduleActivity], tuple[str, int] | None]
"""Takes a free slot of a worker for an activity: (worker, inbox), or None if there is none."""


def translate(state: RunState, action: a.Action, now_ms: int, pick: Pick) -> tuple[e.Event, ...]:
    """The outcome of one action, in the state that the actions before it led to; a close names more."""
    return TRANSLATE[type(action)](state, action, now_ms, pick)


def _schedule_activity(
    state: RunState, action: a.ScheduleActivity, now_ms: int, pick: Pick
) -> tuple[e.Event, ...]:
    offer = pick(action)
    worker, inbox = offer if offer is not None else ("", 0)
    event = e.ActivityScheduled(
        activity_id=action.activity_id,
        activity_type=action.activity_type,
        task_queue=action.task_queue,
        input=action.input,
        schedule_to_close_ms=action.schedule_to_close_ms,
        schedule_to_start_ms=action.schedule_to_start_ms,
        start_to_close_ms=action.start_to_close_ms,
        heartbeat_ms=action.heartbeat_ms,
        retry_policy=action.retry_policy,
        cancellation_type=action.cancellation_type,
        headers=action.headers,
        summary=action.summary,
        priority=action.priority,
        worker=worker,
        inbox=inbox,
    )
    return (event,)


def _cancel_activity(
    state: RunState, action: a.RequestCancelActivity, now_ms: int, pick: Pick
) -> tuple[e.Event, ...]:
    return (activity.decide_cancel_request(state.activities[action.activity_id]),)


def _start_timer(state: RunState, action: a.StartTimer, now_ms: int, pick: Pick) -> tuple[e.Event, ...]:
    event = e.TimerStarted(
        timer_id=action.timer_id, fire_time_ms=time_after(now_ms, action.delay_ms), summary=action.summary
    )
    return (event,)


def _cancel_timer(state: RunState, action: a.CancelTimer, now_ms: int, pick: Pick) -> tuple[e.Event, ...]:
    return (e.TimerCanceled(timer_id=action.timer_id),)


def _publish(state: RunState, action: a.PublishEvent, now_ms: int, pick: Pick) -> tuple[e.Event, ...]:
    event = e.EventPublished(
        topic=action.topic, key=action.key, payload=action.payload, headers=action.headers
    )
    return (event,)


def _complete(state: RunState, action: a.CompleteWorkflow, now_ms: int, pick: Pick) -> tuple[e.Event, ...]:
    close = e.WorkflowCompleted(result=action.result, tags=action.tags)
    return (*activity.decide_abandon(state), close)


def _fail(state: RunState, action: a.FailWorkflow, now_ms: int, pick: Pick) -> tuple[e.Event, ...]:
    close = e.WorkflowFailed(failure=action.failure, tags=action.tags)
    return (*activity.decide_abandon(state), close)


def _accept_cancel(state: RunState, action: a.AcceptCancel, now_ms: int, pick: Pick) -> tuple[e.Event, ...]:
    close = e.WorkflowCanceled(details=action.details, tags=action.tags)
    return (*activity.decide_abandon(state), close)


TRANSLATE: dict[type[a.Action], Callable[[RunState, Any, int, Pick], tuple[e.Event, ...]]] = {
    a.ScheduleActivity: _schedule_activity,
    a.RequestCancelActivity: _cancel_activity,
    a.StartTimer: _start_timer,
    a.CancelTimer: _cancel_timer,
    a.PublishEvent: _publish,
    a.CompleteWorkflow: _complete,
    a.FailWorkflow: _fail,
    a.AcceptCancel: _accept_cancel,
}

_SHAPES: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    a.ScheduleActivity: lambda x: ("activity", x.activity_id, x.activity_type),
    e.ActivityScheduled: lambda x: ("activity", x.activity_id, x.activity_type),
    a.RequestCancelActivity: lambda x: ("cancel of activity", x.activity_id),
    e.ActivityCancelRequested: lambda x: ("cancel of activity", x.activity_id),
    a.StartTimer: lambda x: ("timer", x.timer_id),
    e.TimerStarted: lambda x: ("timer", x.timer_id),
    a.CancelTimer: lambda x: ("cancel of timer", x.timer_id),
    e.TimerCanceled: lambda x: ("cancel of timer", x.timer_id),
    a.PublishEvent: lambda x: ("event for topic", x.topic),
    e.EventPublished: lambda x: ("event for topic", x.topic),
    a.CompleteWorkflow: lambda x: ("completion of the workflow",),
    e.WorkflowCompleted: lambda x: ("completion of the workflow",),
    a.FailWorkflow: lambda x: ("failure of the workflow",),
    e.WorkflowFailed: lambda x: ("failure of the workflow",),
    a.AcceptCancel: lambda x: ("cancellation of the workflow",),
    e.WorkflowCanceled: lambda x: ("cancellation of the workflow",),
}
"""What a replay compares: kind, number and name; not arguments, for an added optional field must not
block every open run."""


def mismatch(action: a.Action | None, event: e.Outcome | None) -> str:
    """How an action of a replay differs from the outcome in history, in words; "" if it does not."""
    found = _SHAPES[type(action)](action) if action is not None else ("nothing",)
    expected = _SHAPES[type(event)](event) if event is not None else ("nothing",)
    if found == expected:
        return ""
    return f"history has {_words(expected)}, the code made {_words(found)}"


def _words(shape: tuple[Any, ...]) -> str:
    return " ".join(str(part) for part in shape)
