"""What leaves follows from a turn and earlier events alone."""

from __future__ import annotations

import pytest

from orchestrator.engine import outbox
from orchestrator.protocol import events as e
from orchestrator.protocol.tasks import ActivityTask, CancelTask
from orchestrator.protocol.values import Payload

from .kit import NOW_MS, RUN_ID, STARTED, Story, given, on_worker, scheduled, sent


def outgoing_of(story: Story) -> list[outbox.Outgoing]:
    def find(event_id: int) -> tuple[e.ActivityScheduled, int]:
        for turn in story.turns:
            place = event_id - turn.first_event_id
            if 0 <= place < len(turn.events):
                event = turn.events[place]
                assert isinstance(event, e.ActivityScheduled)
                return event, turn.time_ms
        raise LookupError(event_id)

    return outbox.outgoing(story.turns[-1], "Order", find)


def test_what_is_scheduled_with_a_worker_leaves_at_once() -> None:
    fields = {
        "input": (Payload(data=b"1"),),
        "schedule_to_close_ms": 1,
        "start_to_close_ms": 3,
        "heartbeat_ms": 4,
        "headers": {"h": "1"},
    }
    story = given(scheduled(1), on_worker(2, **fields))
    (found,) = outgoing_of(story)
    assert found.inbox == 7
    assert found.task == ActivityTask(
        worker="w1",
        workflow_id="order-1",
        run_id=RUN_ID,
        workflow_type="Order",
        activity_id=2,
        activity_type="pay",
        task_queue="default",
        attempt=1,
        dispatch=1,
        scheduled_time_ms=NOW_MS,
        dispatched_time_ms=NOW_MS,
        **fields,  # type: ignore[arg-type]
    )


def test_a_later_dispatch_carries_what_was_scheduled_then() -> None:
    story = given(scheduled(1, input=(Payload(data=b"1"),))).after(900).given(sent(attempt=1))
    (found,) = outgoing_of(story)
    assert isinstance(found.task, ActivityTask)
    assert found.task.input == (Payload(data=b"1"),)
    assert (found.task.scheduled_time_ms, found.task.dispatched_time_ms) == (NOW_MS, NOW_MS + 900)


def test_workers_hear_of_cancellations_and_closes() -> None:
    asked = e.ActivityCancelRequested(activity_id=1, attempt=1, dispatch=1, worker="w1", inbox=7)
    (found,) = outgoing_of(given(on_worker()).given(asked))
    assert found.task == CancelTask(worker="w1", run_id=RUN_ID, activity_id=1, attempt=1, dispatch=1)
    abandoned = e.ActivitiesAbandoned(dispatches=sent(2, dispatch=3).dispatches)
    (found,) = outgoing_of(given(on_worker()).given(abandoned, e.WorkflowTerminated()))
    assert (found.inbox, found.task) == (
        7,
        CancelTask(worker="w1", run_id=RUN_ID, activity_id=2, attempt=1, dispatch=3),
    )


def test_the_order_is_that_of_the_events() -> None:
    story = given(on_worker(1)).given(
        e.ActivityCancelRequested(activity_id=1, attempt=1, dispatch=1, worker="w1"), on_worker(2)
    )
    assert [type(found.task) for found in outgoing_of(story)] == [CancelTask, ActivityTask]


@pytest.mark.parametrize(
    ("events", "sends"),
    [
        ((scheduled(),), False),
        ((on_worker(),), True),
        ((scheduled(1), on_worker(2)), True),
        ((scheduled(), e.ActivityCancelRequested(activity_id=1)), False),
        ((on_worker(), e.ActivityCancelRequested(activity_id=1, worker="w1")), True),
        ((scheduled(), sent()), True),
        ((e.ActivitiesAbandoned(dispatches=sent().dispatches),), True),
        ((e.WorkflowSignaled(signal_name="x"),), False),
    ],
)
def test_whether_a_turn_sends_anything(events: tuple[e.Event, ...], sends: bool) -> None:
    story = Story().given(STARTED, *events)
    assert outbox.has_outgoing(story.turns[-1]) is sends
    assert bool(outgoing_of(story)) is sends


def test_events_of_the_business_leave_as_any_consumer_reads_them() -> None:
    plain = e.EventPublished(topic="orders", key=b"o-1", payload=Payload(data=b'{"id":1}'))
    raw = e.EventPublished(
        topic="raw",
        key=b"",
        payload=Payload(data=b"\x00", encoding="binary/plain"),
        headers={"content-type": b"image/png", "source": b"me"},
    )
    gone = e.EventPublished(topic="orders", key=b"o-1", payload=Payload(data=b"", encoding="binary/null"))
    story = Story().given(STARTED, plain, scheduled(), raw, gone)
    assert outbox.has_publications(story.turns[-1])
    found = outbox.publications(story.turns[-1], "Order")
    ours = {"workflow-id": b"order-1", "run-id": RUN_ID.encode(), "workflow-type": b"Order"}
    assert [(out.topic, out.key, out.value) for out in found] == [
        ("orders", b"o-1", b'{"id":1}'),
        ("raw", b"", b"\x00"),
        ("orders", b"o-1", None),
    ]
    assert [out.headers for out in found] == [
        ours | {"event-id": b"2", "content-type": b"application/json"},
        ours | {"event-id": b"4", "content-type": b"image/png", "source": b"me"},
        ours | {"event-id": b"5"},
    ]
    assert not outgoing_of(story)
    assert not outbox.has_outgoing(story.turns[-1])


def test_a_turn_without_events_of_the_business_publishes_nothing() -> None:
    story = given(on_worker())
    assert not outbox.has_publications(story.turns[-1])
    assert not outbox.publications(story.turns[-1], "Order")
