"""The life of an activity: its table, retries, timeouts, cancellation and reports."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.engine import activity
from orchestrator.engine.state import MAX_TIME_MS, ActivityPhase, Deadline, DeadlineKind
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.values import Failure, FailureKind, Payload, RetryPolicy, RetryState, TimeoutType

from .kit import (
    BOOM,
    NOW_MS,
    RUN_ID,
    Story,
    attempt_failed,
    given,
    on_worker,
    policy,
    report,
    scheduled,
    sent,
)

WAITING, DISPATCHED, BACKOFF = ActivityPhase.WAITING, ActivityPhase.DISPATCHED, ActivityPhase.BACKOFF
TIMEOUT = Failure(kind=FailureKind.TIMEOUT, message="late")

# ------------------------------------------------------------------------------------- the table

PHASES: dict[ActivityPhase | None, tuple[e.Event, ...]] = {
    None: (),
    WAITING: (scheduled(),),
    DISPATCHED: (on_worker(),),
    BACKOFF: (on_worker(), attempt_failed()),
}
SAMPLES: list[e.Event] = [
    scheduled(),
    on_worker(),
    sent(),
    attempt_failed(),
    e.ActivityReturned(activity_id=1, attempt=1, dispatch=1, worker="w1"),
    e.ActivityCancelRequested(activity_id=1),
    e.ActivityCompleted(activity_id=1),
    e.ActivityFailed(activity_id=1, failure=BOOM, retry_state=RetryState.NON_RETRYABLE_FAILURE),
    e.ActivityTimedOut(activity_id=1, failure=TIMEOUT, retry_state=RetryState.TIMEOUT),
    e.ActivityCanceled(activity_id=1),
]


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("phase", list(PHASES), ids=str)
def test_every_transition_is_as_the_table_says(phase: ActivityPhase | None, event: e.Event) -> None:
    story = given(*PHASES[phase])
    assert story.phase() is phase
    allowed = activity.TRANSITIONS.get((phase, type(event)))
    if allowed is None:
        with pytest.raises(ValueError, match=r"activity 1 of run .* is"):
            story.given(event)
        return
    story.given(event)
    assert story.phase() in allowed


def test_the_samples_reach_every_row_of_the_table() -> None:
    reached: dict[tuple[ActivityPhase | None, type], set[ActivityPhase | None]] = {}
    for phase, events in PHASES.items():
        for event in SAMPLES:
            if (phase, type(event)) in activity.TRANSITIONS:
                reached.setdefault((phase, type(event)), set()).add(given(*events, event).phase())
    assert reached == {row: set(phases) for row, phases in activity.TRANSITIONS.items()}


# --------------------------------------------------------------------------------- retry arithmetic


@pytest.mark.parametrize(
    ("fields", "attempt", "delay_ms"),
    [
        ({}, 1, 1_000),
        ({}, 2, 2_000),
        ({}, 7, 64_000),
        ({}, 8, 100_000),  # 100 times the initial interval
        ({}, 5_000, 100_000),  # 2.0 ** 4999 is beyond a float
        ({"initial_interval_ms": 50}, 20, 5_000),
        ({"maximum_interval_ms": 3_000}, 3, 3_000),
        ({"maximum_interval_ms": 500}, 1, 500),
        ({"maximum_interval_ms": 10**12}, 5_000, 10**12),
        ({"backoff_coefficient": 1.0}, 50, 1_000),
        ({"backoff_coefficient": 1.5}, 3, 2_250),
    ],
)
def test_delay_between_attempts(fields: dict[str, Any], attempt: int, delay_ms: int) -> None:
    assert activity.retry_delay_ms(RetryPolicy(**fields), attempt) == delay_ms


def test_the_defaults_are_temporals() -> None:
    default = RetryPolicy()
    assert (default.initial_interval_ms, default.backoff_coefficient) == (1_000, 2.0)
    assert (default.maximum_interval_ms, default.maximum_attempts) == (None, 0)


def test_a_failed_attempt_is_followed_by_another_after_the_delay() -> None:
    story = given(on_worker()).after(250).when(report(c.FailActivity, started_time_ms=5))
    story.then(
        e.ActivityAttemptFailed(
            activity_id=1,
            attempt=1,
            failure=BOOM,
            retry_time_ms=NOW_MS + 1_250,
            worker="w1",
            started_time_ms=5,
        )
    )
    found = story.state.activities[1]
    assert (found.phase, found.attempt, found.last_failure) == (BACKOFF, 2, BOOM)
    assert story.standing() == [Deadline(NOW_MS + 1_250, DeadlineKind.RETRY, 1)]
    assert story.slots() == []


def test_the_delay_grows_with_the_attempt() -> None:
    story = given(on_worker(), attempt_failed(), sent(attempt=2, dispatch=2))
    event = story.when(report(c.FailActivity, attempt=2, dispatch=2)).happens()
    assert event.retry_time_ms == NOW_MS + 2_000
    assert story.state.activities[1].attempt == 3


@pytest.mark.parametrize(
    ("fields", "failure", "state"),
    [
        ({"maximum_attempts": 1}, BOOM, RetryState.MAXIMUM_ATTEMPTS_REACHED),
        ({"non_retryable_error_types": ("Boom",)}, BOOM, RetryState.NON_RETRYABLE_FAILURE),
        (
            {},
            Failure(kind=FailureKind.APPLICATION, message="no", non_retryable=True),
            RetryState.NON_RETRYABLE_FAILURE,
        ),
        ({}, Failure(kind=FailureKind.CANCELED, message="no"), RetryState.NON_RETRYABLE_FAILURE),
        ({}, Failure(kind=FailureKind.TERMINATED, message="no"), RetryState.NON_RETRYABLE_FAILURE),
    ],
)
def test_what_is_not_tried_again(fields: dict[str, Any], failure: Failure, state: RetryState) -> None:
    story = given(on_worker(retry_policy=policy(**fields)))
    event = story.when(report(c.FailActivity, failure=failure)).happens()
    assert isinstance(event, e.ActivityFailed)
    assert (event.retry_state, event.failure, event.worker) == (state, failure, "w1")
    assert story.phase() is None


@pytest.mark.parametrize(("maximum", "closes"), [(0, False), (1, True), (2, True), (3, False)])
def test_maximum_attempts_counts_all_attempts(maximum: int, closes: bool) -> None:
    story = given(on_worker(retry_policy=policy(maximum_attempts=maximum)))
    story.given(attempt_failed(), sent(attempt=2, dispatch=2))
    event = story.when(report(c.FailActivity, attempt=2, dispatch=2)).happens()
    assert isinstance(event, e.ActivityFailed) is closes


def test_a_timeout_type_in_the_list_is_not_retryable() -> None:
    fields = {"start_to_close_ms": 500, "retry_policy": policy(non_retryable_error_types=("Timeout",))}
    event = given(on_worker(**fields)).when_due(DeadlineKind.START_TO_CLOSE).happens()
    assert isinstance(event, e.ActivityTimedOut)
    assert event.retry_state is RetryState.NON_RETRYABLE_FAILURE


@pytest.mark.parametrize(
    ("delay_ms", "due_ms"),
    [
        (0, NOW_MS),
        (77, NOW_MS + 77),
        (-5, NOW_MS),  # a foreign worker's nonsense must fit into rows and records
        (2**63 - 1, MAX_TIME_MS),
    ],
)
def test_next_retry_delay_wins_over_the_policy(delay_ms: int, due_ms: int) -> None:
    failure = Failure(kind=FailureKind.APPLICATION, message="busy", next_retry_delay_ms=delay_ms)
    event = given(on_worker()).when(report(c.FailActivity, failure=failure)).happens()
    assert event.retry_time_ms == due_ms


@pytest.mark.parametrize(("limit_ms", "closes"), [(999, True), (1_000, True), (1_001, False)])
def test_no_attempt_begins_at_or_after_schedule_to_close(limit_ms: int, closes: bool) -> None:
    event = given(on_worker(schedule_to_close_ms=limit_ms)).when(report(c.FailActivity)).happens()
    assert isinstance(event, e.ActivityFailed) is closes
    if closes:
        assert event.retry_state is RetryState.TIMEOUT


# ------------------------------------------------------------------------------------------ timeouts


def test_start_to_close_fails_the_attempt_and_counts_from_the_dispatch() -> None:
    story = given(scheduled(start_to_close_ms=500))
    assert story.kinds() == []
    story.after(10_000).given(sent())
    assert story.standing() == [Deadline(NOW_MS + 10_500, DeadlineKind.START_TO_CLOSE, 1)]
    event = story.when_due(DeadlineKind.START_TO_CLOSE).happens()
    assert isinstance(event, e.ActivityAttemptFailed)
    assert event.failure.timeout_type is TimeoutType.START_TO_CLOSE
    assert "500 ms" in event.failure.message
    assert story.slots() == []


def test_start_to_close_of_the_last_attempt_closes() -> None:
    story = given(on_worker(start_to_close_ms=500, retry_policy=policy(maximum_attempts=1)))
    event = story.when_due(DeadlineKind.START_TO_CLOSE).happens()
    assert isinstance(event, e.ActivityTimedOut)
    assert event.retry_state is RetryState.MAXIMUM_ATTEMPTS_REACHED
    assert story.standing() == []
    assert story.slots() == []


@pytest.mark.parametrize("before", [(), (sent(),), (sent(), attempt_failed())], ids=str)
def test_schedule_to_close_closes_in_every_phase(before: tuple[e.Event, ...]) -> None:
    story = given(scheduled(schedule_to_close_ms=60_000), *before)
    event = story.when_due(DeadlineKind.SCHEDULE_TO_CLOSE).happens()
    assert isinstance(event, e.ActivityTimedOut)
    assert event.failure.timeout_type is TimeoutType.SCHEDULE_TO_CLOSE
    assert event.failure.cause == (BOOM if len(before) == 2 else None)
    assert story.standing() == []
    assert story.slots() == []


def test_schedule_to_start_closes_and_names_the_queue() -> None:
    story = given(scheduled(schedule_to_start_ms=700, task_queue="slow"))
    event = story.when_due(DeadlineKind.SCHEDULE_TO_START).happens()
    assert isinstance(event, e.ActivityTimedOut)
    assert event.retry_state is RetryState.TIMEOUT
    assert "'slow'" in event.failure.message


def test_schedule_to_start_does_not_stand_while_a_worker_has_it() -> None:
    story = given(scheduled(schedule_to_start_ms=700)).given(sent())
    assert story.kinds() == []
    story.when_due(DeadlineKind.SCHEDULE_TO_START, at_ms=NOW_MS + 700).nothing()


def test_schedule_to_start_of_a_retry_counts_from_the_end_of_the_backoff() -> None:
    story = given(on_worker(schedule_to_start_ms=700), attempt_failed(retry_in_ms=5_000))
    assert Deadline(NOW_MS + 5_700, DeadlineKind.SCHEDULE_TO_START, 1) in story.standing()


def test_schedule_to_start_of_a_returned_delivery_counts_from_the_schedule() -> None:
    story = given(on_worker(schedule_to_start_ms=700)).after(100).when(report(c.ReturnActivity))
    story.happens()
    assert story.standing() == [Deadline(NOW_MS + 700, DeadlineKind.SCHEDULE_TO_START, 1)]


def test_a_deadline_that_no_longer_stands_changes_nothing() -> None:
    story = given(on_worker(start_to_close_ms=500))
    story.when_due(DeadlineKind.START_TO_CLOSE, at_ms=NOW_MS + 499).nothing()
    story.when_due(DeadlineKind.START_TO_CLOSE, owner=9, at_ms=NOW_MS + 500).nothing()
    story.given(e.ActivityCompleted(activity_id=1))
    story.when_due(DeadlineKind.START_TO_CLOSE, at_ms=NOW_MS + 500).nothing()


def test_a_backoff_ends_without_an_event() -> None:
    given(on_worker(), attempt_failed()).when_due(DeadlineKind.RETRY).nothing()


def test_times_beyond_all_reason_stay_in_the_rows() -> None:
    limits = {"schedule_to_close_ms": 2**62, "schedule_to_start_ms": 2**62, "start_to_close_ms": 2**62}
    assert {d.at_ms for d in given(scheduled(**limits)).standing()} == {MAX_TIME_MS}
    assert {d.at_ms for d in given(on_worker(**limits)).standing()} == {MAX_TIME_MS}


# ------------------------------------------------------------------------------------------- reports


def test_a_result_closes_the_activity() -> None:
    story = given(on_worker()).when(report(c.CompleteActivity, result=Payload(data=b"1"), started_time_ms=3))
    story.then(
        e.ActivityCompleted(
            activity_id=1, result=Payload(data=b"1"), attempt=1, worker="w1", started_time_ms=3
        )
    )
    assert story.phase() is None
    assert story.slots() == []


KINDS = [c.CompleteActivity, c.FailActivity, c.ReportActivityCanceled, c.ReturnActivity]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "stale",
    [{"attempt": 2}, {"dispatch": 2}, {"dispatch": 0}, {"activity_id": 2}, {"run_id": "another"}],
    ids=str,
)
def test_a_report_on_another_delivery_changes_nothing(kind: Any, stale: dict[str, Any]) -> None:
    given(on_worker()).when(report(kind, **stale)).nothing()


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_on_a_delivery_that_is_not_open_changes_nothing(kind: Any) -> None:
    given(scheduled()).when(report(kind)).nothing()
    given(on_worker(), attempt_failed()).when(report(kind)).nothing()
    given(on_worker(), e.ActivityCompleted(activity_id=1)).when(report(kind)).nothing()
    given(on_worker(), e.WorkflowCompleted()).when(report(kind)).nothing()


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeated_report_changes_nothing(kind: Any) -> None:
    story = given(on_worker())
    story.when(report(kind)).happens()
    story.when(report(kind)).nothing()


def test_a_return_is_no_attempt_and_the_next_delivery_has_the_next_number() -> None:
    story = given(on_worker()).when(report(c.ReturnActivity, reason="full"))
    story.then(e.ActivityReturned(activity_id=1, attempt=1, dispatch=1, worker="w1", reason="full"))
    assert story.changes.waiting == [1]
    assert story.slots() == []
    (event,) = activity.decide_dispatch(story.state, ((1, "w2", 3),))
    (delivery,) = event.dispatches
    assert (delivery.attempt, delivery.dispatch, delivery.worker, delivery.inbox) == (1, 2, "w2", 3)
    assert delivery.scheduled_event_id == 2


# --------------------------------------------------------------------------------------- lost workers


def test_all_attempts_of_a_lost_worker_are_tried_again_at_once() -> None:
    story = given(on_worker(1), on_worker(2, worker="w2"), scheduled(3), on_worker(4))
    story.given(attempt_failed(4))
    events = activity.decide_worker_lost(story.state, "w1", NOW_MS + 9)
    assert [(type(event), event.activity_id) for event in events] == [(e.ActivityAttemptFailed, 1)]  # type: ignore[attr-defined,misc]
    story.given(*events)
    found = story.state.activities[1]
    assert (found.phase, found.retry_time_ms, found.attempt) == (BACKOFF, NOW_MS + 9, 2)
    assert story.slots() == [("w2", 2)]


def test_with_one_attempt_a_lost_worker_fails_the_activity() -> None:
    story = given(on_worker(retry_policy=policy(maximum_attempts=1)))
    (event,) = activity.decide_worker_lost(story.state, "w1", NOW_MS)
    assert isinstance(event, e.ActivityFailed)
    assert event.retry_state is RetryState.MAXIMUM_ATTEMPTS_REACHED
    assert event.failure.kind is FailureKind.WORKER_LOST


# ------------------------------------------------------------------------------------------ cancelling


def request_cancel(story: Story) -> e.ActivityCancelRequested:
    event = activity.decide_cancel_request(story.state.activities[1])
    story.given(event)
    return event


@pytest.mark.parametrize("before", [(), (sent(), attempt_failed())], ids=["waiting", "backoff"])
def test_what_no_worker_has_is_cancelled_in_the_next_turn(before: tuple[e.Event, ...]) -> None:
    story = given(scheduled(schedule_to_start_ms=9, schedule_to_close_ms=99), *before)
    assert request_cancel(story).worker == ""
    settled = activity.decide_settle(story.state)
    assert [type(event) for event in settled] == [e.ActivityCanceled]
    story.given(*settled)
    assert story.standing() == []
    assert activity.decide_settle(story.state) == ()


def test_the_worker_that_has_it_is_told_and_decides() -> None:
    story = given(on_worker())
    event = request_cancel(story)
    assert (event.worker, event.inbox, event.attempt, event.dispatch) == ("w1", 7, 1, 1)
    assert activity.decide_settle(story.state) == ()
    story.when(report(c.ReportActivityCanceled)).then(e.ActivityCanceled(activity_id=1, attempt=1))


def test_a_result_after_the_request_counts() -> None:
    story = given(on_worker())
    request_cancel(story)
    assert isinstance(story.when(report(c.CompleteActivity)).happens(), e.ActivityCompleted)


def test_a_return_after_the_request_cancels() -> None:
    story = given(on_worker())
    request_cancel(story)
    story.when(report(c.ReturnActivity)).then(e.ActivityCanceled(activity_id=1, attempt=1))


def test_a_failure_after_the_request_is_not_tried_again() -> None:
    story = given(on_worker())
    request_cancel(story)
    event = story.when(report(c.FailActivity)).happens()
    assert isinstance(event, e.ActivityFailed)
    assert event.retry_state is RetryState.CANCEL_REQUESTED


def test_a_worker_lost_after_the_request_is_the_end() -> None:
    story = given(on_worker())
    request_cancel(story)
    (event,) = activity.decide_worker_lost(story.state, "w1", NOW_MS)
    assert isinstance(event, e.ActivityFailed)
    assert event.retry_state is RetryState.CANCEL_REQUESTED


def test_a_cancellation_that_nobody_asked_for_is_a_failure() -> None:
    event = given(on_worker()).when(report(c.ReportActivityCanceled)).happens()
    assert isinstance(event, e.ActivityFailed)
    assert event.failure.kind is FailureKind.CANCELED


# --------------------------------------------------------------------------------- dispatch and abandon


def test_only_what_waits_is_dispatched() -> None:
    story = given(scheduled(1), on_worker(2), scheduled(3))
    story.given(e.ActivityCancelRequested(activity_id=3))
    (event,) = activity.decide_dispatch(story.state, ((1, "w", 0), (2, "w", 0), (3, "w", 0), (4, "w", 0)))
    assert [delivery.activity_id for delivery in event.dispatches] == [1]
    assert activity.decide_dispatch(story.state, ((9, "w", 0),)) == ()


def test_a_large_fan_out_is_dispatched_and_abandoned_in_events_of_limited_size() -> None:
    count = activity.MAX_DISPATCHES_PER_EVENT + 1
    story = given(*(scheduled(number) for number in range(1, count + 1)))
    events = activity.decide_dispatch(story.state, tuple((n, "w", 0) for n in range(1, count + 1)))
    assert [len(event.dispatches) for event in events] == [count - 1, 1]
    story.given(*events)
    abandoned = activity.decide_abandon(story.state)
    assert [len(event.dispatches) for event in abandoned] == [count - 1, 1]  # type: ignore[attr-defined]


def test_abandoned_are_the_deliveries_whose_worker_was_not_told_yet() -> None:
    story = given(on_worker(1), scheduled(2), on_worker(3), on_worker(4))
    story.given(e.ActivityCancelRequested(activity_id=3, worker="w1"), attempt_failed(4))
    (event,) = activity.decide_abandon(story.state)
    assert isinstance(event, e.ActivitiesAbandoned)
    assert [(d.activity_id, d.worker, d.dispatch) for d in event.dispatches] == [(1, "w1", 1)]
    assert story.state.run_id == RUN_ID
