"""What leaves: the tasks and business events that follow from a committed turn.

Pure functions of the turn and earlier events of its run, never of the current state; so release, takeover,
the publisher and anybody who reads history come to the same records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.protocol.events import (
    ActivitiesAbandoned,
    ActivitiesDispatched,
    ActivityCancelRequested,
    ActivityScheduled,
    Dispatch,
    Event,
    EventPublished,
)
from orchestrator.protocol.publications import (
    CONTENT_TYPE_HEADER,
    EVENT_ID_HEADER,
    RUN_ID_HEADER,
    WORKFLOW_ID_HEADER,
    WORKFLOW_TYPE_HEADER,
    Publication,
)
from orchestrator.protocol.records import Turn
from orchestrator.protocol.tasks import ActivityTask, CancelTask, Task
from orchestrator.protocol.traces import handed_on
from orchestrator.protocol.values import Value


class Outgoing(Value, frozen=True, kw_only=True):
    """A task and the inbox partition that it goes to."""

    inbox: int
    task: Task


_SENDERS: dict[type[Event], Callable[[Any], bool]] = {
    ActivityScheduled: lambda event: bool(event.worker),
    ActivityCancelRequested: lambda event: bool(event.worker),
    ActivitiesDispatched: lambda event: True,
    ActivitiesAbandoned: lambda event: True,
}
"""Whether an event sends anything; events that are not here send nothing."""


def outgoing(
    turn: Turn, workflow_type: str, scheduled_by_id: Callable[[int], tuple[ActivityScheduled, int]]
) -> list[Outgoing]:
    """The tasks that a turn sends, in the order of its events.

    ``scheduled_by_id`` finds an ``ActivityScheduled`` of the run by its event id, with its turn's time.
    """
    found: list[Outgoing] = []
    for place, event in enumerate(turn.events):
        if isinstance(event, ActivityScheduled):
            if event.worker:
                dispatch = Dispatch(
                    activity_id=event.activity_id,
                    scheduled_event_id=turn.first_event_id + place,
                    attempt=1,
                    dispatch=1,
                    worker=event.worker,
                    inbox=event.inbox,
                )
                found.append(_task(turn, workflow_type, dispatch, event, turn.time_ms))
        elif isinstance(event, ActivitiesDispatched):
            for dispatch in event.dispatches:
                scheduled, time_ms = scheduled_by_id(dispatch.scheduled_event_id)
                found.append(_task(turn, workflow_type, dispatch, scheduled, time_ms))
        elif isinstance(event, ActivityCancelRequested):
            if event.worker:
                found.append(_cancel(turn, event))
        elif isinstance(event, ActivitiesAbandoned):
            found.extend(_cancel(turn, dispatch) for dispatch in event.dispatches)
    return found


def has_outgoing(turn: Turn) -> bool:
    """Whether a turn sends anything."""
    for event in turn.events:
        sends = _SENDERS.get(type(event))
        if sends is not None and sends(event):
            return True
    return False


def _task(
    turn: Turn, workflow_type: str, dispatch: Dispatch, scheduled: ActivityScheduled, scheduled_time_ms: int
) -> Outgoing:
    task = ActivityTask(
        worker=dispatch.worker,
        workflow_id=turn.workflow_id,
        run_id=turn.run_id,
        workflow_type=workflow_type,
        activity_id=dispatch.activity_id,
        activity_type=scheduled.activity_type,
        task_queue=scheduled.task_queue,
        attempt=dispatch.attempt,
        dispatch=dispatch.dispatch,
        input=scheduled.input,
        scheduled_time_ms=scheduled_time_ms,
        dispatched_time_ms=turn.time_ms,
        schedule_to_close_ms=scheduled.schedule_to_close_ms,
        start_to_close_ms=scheduled.start_to_close_ms,
        heartbeat_ms=scheduled.heartbeat_ms,
        retry_policy=scheduled.retry_policy,
        headers=scheduled.headers | handed_on(turn.headers) if turn.headers else scheduled.headers,
    )
    return Outgoing(inbox=dispatch.inbox, task=task)


def _cancel(turn: Turn, delivery: Dispatch | ActivityCancelRequested) -> Outgoing:
    task = CancelTask(
        worker=delivery.worker,
        run_id=turn.run_id,
        activity_id=delivery.activity_id,
        attempt=delivery.attempt,
        dispatch=delivery.dispatch,
    )
    return Outgoing(inbox=delivery.inbox, task=task)


CONTENT_TYPES = {"json/plain": b"application/json", "binary/plain": b"application/octet-stream"}
"""What other consumers call the encodings of payloads. Those of codecs have no such name."""

TOMBSTONE_ENCODING = "binary/null"
"""The event None deletes what its key stands for, on a compacted topic."""


def publications(turn: Turn, workflow_type: str) -> list[Publication]:
    """The records that a turn puts on users' topics, in the order of its events."""
    return [
        _publication(turn, workflow_type, event, turn.first_event_id + place)
        for place, event in enumerate(turn.events)
        if isinstance(event, EventPublished)
    ]


def has_publications(turn: Turn) -> bool:
    """Whether a turn publishes anything."""
    return any(type(event) is EventPublished for event in turn.events)


def _publication(turn: Turn, workflow_type: str, event: EventPublished, event_id: int) -> Publication:
    payload = event.payload
    headers = {
        WORKFLOW_ID_HEADER: turn.workflow_id.encode(),
        RUN_ID_HEADER: turn.run_id.encode(),
        EVENT_ID_HEADER: str(event_id).encode(),
        WORKFLOW_TYPE_HEADER: workflow_type.encode(),
    }
    if payload.encoding in CONTENT_TYPES:
        headers[CONTENT_TYPE_HEADER] = CONTENT_TYPES[payload.encoding]
    headers |= {name: value.encode() for name, value in handed_on(turn.headers).items()}
    return Publication(
        topic=event.topic,
        key=event.key,
        value=None if payload.encoding == TOMBSTONE_ENCODING else payload.data,
        headers=headers | event.headers,
    )
