"""Actions: what workflow code asked for in one activation, in the order it asked.

The runner (``orchestrator.workflow``) makes them, the engine turns them into events. Numbers
(``activity_id``, ``timer_id``) are given by the runner, from 1, per run and kind. Retry states and
times are the engine's business: an action says only what the code said.
"""

from __future__ import annotations

from orchestrator.protocol.values import (
    CancellationType,
    Failure,
    Payload,
    Payloads,
    RetryPolicy,
    Value,
)


class ActionBase(Value, tag=True, tag_field="action", frozen=True, kw_only=True):
    """What all actions have in common: nothing but the tag that names their kind."""


class ScheduleActivity(ActionBase, frozen=True, kw_only=True):
    """Run an activity."""

    activity_id: int
    activity_type: str
    task_queue: str = ""
    input: Payloads = ()
    schedule_to_close_ms: int | None = None
    schedule_to_start_ms: int | None = None
    start_to_close_ms: int | None = None
    heartbeat_ms: int | None = None
    retry_policy: RetryPolicy = RetryPolicy()
    cancellation_type: CancellationType = CancellationType.TRY_CANCEL
    headers: dict[str, str] = {}
    summary: str = ""
    priority: int = 0


class RequestCancelActivity(ActionBase, frozen=True, kw_only=True):
    """Cancel an activity that is not closed."""

    activity_id: int


class StartTimer(ActionBase, frozen=True, kw_only=True):
    """Start a durable timer."""

    timer_id: int
    delay_ms: int
    summary: str = ""


class CancelTimer(ActionBase, frozen=True, kw_only=True):
    """Cancel a timer that has not fired."""

    timer_id: int


class PublishEvent(ActionBase, frozen=True, kw_only=True):
    """Publish a business event to a topic of the user's."""

    topic: str
    key: bytes
    payload: Payload
    headers: dict[str, bytes] = {}


class CompleteWorkflow(ActionBase, frozen=True, kw_only=True):
    """``run()`` returned. Terminal: always the last action."""

    result: Payload | None = None
    tags: tuple[str, ...] = ()


class FailWorkflow(ActionBase, frozen=True, kw_only=True):
    """``run()`` raised a declared failure. Terminal."""

    failure: Failure
    tags: tuple[str, ...] = ()


class AcceptCancel(ActionBase, frozen=True, kw_only=True):
    """``run()`` ended because its cancellation was requested. Terminal."""

    details: Payloads = ()
    tags: tuple[str, ...] = ()


Action = (
    ScheduleActivity
    | RequestCancelActivity
    | StartTimer
    | CancelTimer
    | PublishEvent
    | CompleteWorkflow
    | FailWorkflow
    | AcceptCancel
)
TERMINAL: tuple[type[ActionBase], ...] = (CompleteWorkflow, FailWorkflow, AcceptCancel)
