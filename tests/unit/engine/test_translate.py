"""Actions become events; replays are held against history."""

from __future__ import annotations

import pytest

from orchestrator.engine import translate
from orchestrator.engine.state import MAX_TIME_MS
from orchestrator.protocol import actions as a
from orchestrator.protocol import events as e
from orchestrator.protocol.values import CancellationType, Payload

from .kit import BOOM, NOW_MS, Story, given, on_worker, policy, scheduled

ACTION = a.ScheduleActivity(
    activity_id=1,
    activity_type="pay",
    task_queue="q",
    input=(Payload(data=b"1"),),
    schedule_to_close_ms=1,
    schedule_to_start_ms=2,
    start_to_close_ms=3,
    heartbeat_ms=4,
    retry_policy=policy(maximum_attempts=3),
    cancellation_type=CancellationType.ABANDON,
    headers={"h": "1"},
    summary="s",
    priority=2,
)


def made(story: Story, action: a.Action, offer: tuple[str, int] | None = None) -> tuple[e.Event, ...]:
    return translate.translate(story.state, action, NOW_MS, lambda _: offer)


def test_every_action_has_a_row() -> None:
    assert set(translate.TRANSLATE) == set(a.Action.__args__)  # type: ignore[attr-defined]
    assert set(translate._SHAPES) == {*a.Action.__args__, *e.OUTCOMES}  # type: ignore[attr-defined]


@pytest.mark.parametrize("offer", [None, ("w1", 7)])
def test_an_activity_keeps_all_that_the_code_said(offer: tuple[str, int] | None) -> None:
    (event,) = made(given(), ACTION, offer)
    assert isinstance(event, e.ActivityScheduled)
    for name in ACTION.__struct_fields__:
        assert getattr(event, name) == getattr(ACTION, name), name
    assert (event.worker, event.inbox) == (offer or ("", 0))


def test_timers_and_their_cancellation() -> None:
    story = given()
    (event,) = made(story, a.StartTimer(timer_id=1, delay_ms=50, summary="nap"))
    assert event == e.TimerStarted(timer_id=1, fire_time_ms=NOW_MS + 50, summary="nap")
    (late,) = made(story, a.StartTimer(timer_id=2, delay_ms=2**62))
    assert late.fire_time_ms == MAX_TIME_MS  # type: ignore[union-attr]
    assert made(story, a.CancelTimer(timer_id=1)) == (e.TimerCanceled(timer_id=1),)


def test_a_cancelled_activity_names_the_worker_that_has_it() -> None:
    (event,) = made(given(on_worker()), a.RequestCancelActivity(activity_id=1))
    assert event == e.ActivityCancelRequested(activity_id=1, attempt=1, dispatch=1, worker="w1", inbox=7)


def test_a_published_event_is_recorded_as_it_is() -> None:
    action = a.PublishEvent(topic="t", key=b"k", payload=Payload(data=b"1"), headers={"h": b"1"})
    (event,) = made(given(), action)
    assert isinstance(event, e.EventPublished)
    for name in action.__struct_fields__:
        assert getattr(event, name) == getattr(action, name), name


@pytest.mark.parametrize(
    ("action", "close"),
    [
        (a.CompleteWorkflow(result=Payload(data=b"1"), tags=("t",)), e.WorkflowCompleted),
        (a.FailWorkflow(failure=BOOM, tags=("t",)), e.WorkflowFailed),
        (a.AcceptCancel(details=(Payload(data=b"1"),), tags=("t",)), e.WorkflowCanceled),
    ],
)
def test_a_close_names_what_is_with_workers(action: a.Action, close: type) -> None:
    abandoned, closed = made(given(on_worker(1), scheduled(2)), action)
    assert isinstance(abandoned, e.ActivitiesAbandoned)
    assert isinstance(closed, close)
    for name in action.__struct_fields__:
        assert getattr(closed, name) == getattr(action, name), name
    assert len(made(given(), action)) == 1


PAIRS: list[tuple[a.Action, e.Outcome]] = [
    (ACTION, scheduled(1, task_queue="other", summary="another")),
    (a.RequestCancelActivity(activity_id=1), e.ActivityCancelRequested(activity_id=1, worker="w")),
    (a.StartTimer(timer_id=1, delay_ms=1), e.TimerStarted(timer_id=1, fire_time_ms=99)),
    (a.CancelTimer(timer_id=1), e.TimerCanceled(timer_id=1)),
    (
        a.PublishEvent(topic="orders", key=b"1", payload=Payload(data=b"1")),
        e.EventPublished(topic="orders", key=b"2", payload=Payload(data=b"2")),
    ),
    (a.CompleteWorkflow(), e.WorkflowCompleted(tags=("t",))),
    (a.FailWorkflow(failure=BOOM), e.WorkflowFailed(failure=BOOM)),
    (a.AcceptCancel(), e.WorkflowCanceled()),
]


@pytest.mark.parametrize("action", [pair[0] for pair in PAIRS])
@pytest.mark.parametrize("outcome", [pair[1] for pair in PAIRS])
def test_a_replay_compares_kind_number_and_name(action: a.Action, outcome: e.Outcome) -> None:
    assert (translate.mismatch(action, outcome) == "") is ((action, outcome) in PAIRS)


@pytest.mark.parametrize(
    ("action", "outcome", "words"),
    [
        (None, scheduled(3), "history has activity 3 pay, the code made nothing"),
        (ACTION, None, "history has nothing, the code made activity 1 pay"),
        (ACTION, scheduled(2), "history has activity 2 pay, the code made activity 1 pay"),
        (
            a.StartTimer(timer_id=1, delay_ms=1),
            scheduled(1, activity_type="ship"),
            "history has activity 1 ship, the code made timer 1",
        ),
    ],
)
def test_the_message_shows_both_sides(action: a.Action | None, outcome: e.Outcome | None, words: str) -> None:
    assert translate.mismatch(action, outcome) == words
