from __future__ import annotations

from orchestrator.api.pages.timeline import MAX_ATTEMPTS_KEPT, MAX_GAPS_KEPT, Kind, Outcome
from orchestrator.protocol import events as e
from orchestrator.protocol.values import Failure, FailureKind, Payload, RetryState

from .runs import FAILED, Told, dispatched, scheduled


def failed(activity_id: int, attempt: int, kind: FailureKind = FailureKind.APPLICATION) -> e.Event:
    failure = Failure(kind=kind, message="gateway 504", type="Gateway")
    return e.ActivityAttemptFailed(activity_id=activity_id, attempt=attempt, failure=failure, retry_time_ms=0)


def test_an_activity_is_a_bar_and_its_attempts_are_pieces_of_it() -> None:
    run = Told()
    run.turn(1, scheduled(1))
    run.turn(5, dispatched(1, attempt=1))
    run.turn(9, failed(1, 1))
    run.turn(20, dispatched(1, attempt=2))
    run.turn(30, failed(1, 2, FailureKind.WORKER_LOST))
    run.turn(40, dispatched(1, attempt=3))
    run.turn(50, e.ActivityCompleted(activity_id=1, attempt=3))

    bar = run.timeline.activities[1]
    assert (bar.kind, bar.name, bar.start_ms, bar.end_ms, bar.tries) == (Kind.ACTIVITY, "charge", 1, 50, 3)
    assert bar.outcome is Outcome.DONE
    assert bar.troubled
    assert [(one.number, one.start_ms, one.end_ms, one.outcome) for one in bar.attempts] == [
        (1, 5, 9, Outcome.FAILED),
        (2, 20, 30, Outcome.LOST),
        (3, 40, 50, Outcome.DONE),
    ]
    assert bar.attempts[0].detail == "Gateway: gateway 504"


def test_what_a_worker_has_at_once_runs_from_the_turn_that_asked_for_it() -> None:
    run = Told()
    run.turn(7, scheduled(1, worker="w"))
    (attempt,) = run.timeline.activities[1].attempts
    assert (attempt.start_ms, attempt.end_ms, attempt.outcome) == (7, None, Outcome.OPEN)


def test_an_attempt_that_was_returned_is_no_failure() -> None:
    run = Told()
    run.turn(1, scheduled(1, worker="w"))
    run.turn(2, e.ActivityReturned(activity_id=1, attempt=1, dispatch=1, worker="w", reason="draining"))
    (attempt,) = run.timeline.activities[1].attempts
    assert (attempt.end_ms, attempt.outcome, attempt.detail) == (2, Outcome.RETURNED, "draining")
    assert not run.timeline.activities[1].troubled


def test_each_way_to_close_an_activity_shows() -> None:
    run = Told()
    run.turn(1, *(scheduled(number, worker="w") for number in (1, 2, 3, 4)))
    run.turn(
        2,
        e.ActivityCompleted(activity_id=1),
        e.ActivityFailed(activity_id=2, failure=FAILED, retry_state=RetryState.NON_RETRYABLE_FAILURE),
        e.ActivityTimedOut(activity_id=3, failure=FAILED, retry_state=RetryState.TIMEOUT),
        e.ActivityCanceled(activity_id=4),
    )
    assert [bar.outcome for bar in run.timeline.activities.values()] == [
        Outcome.DONE,
        Outcome.FAILED,
        Outcome.TIMED_OUT,
        Outcome.CANCELED,
    ]
    assert run.timeline.activities[2].attempts[0].detail == "Gateway: gateway 504"  # the root, not "failed"


def test_an_activity_that_is_tried_for_ever_keeps_its_first_and_its_newest_attempts() -> None:
    run = Told()
    run.turn(0, scheduled(1, worker="w"))
    for number in range(1, 1_001):
        run.turn(2 * number, failed(1, number))
        run.turn(2 * number + 1, dispatched(1, attempt=number + 1))
    bar = run.timeline.activities[1]
    assert bar.tries == 1_001
    assert len(bar.attempts) == MAX_ATTEMPTS_KEPT
    assert [bar.attempts[place].number for place in (0, 1, -1)] == [1, 1_003 - MAX_ATTEMPTS_KEPT, 1_001]


def test_timers_and_marks() -> None:
    run = Told()
    run.turn(1, e.TimerStarted(timer_id=1, fire_time_ms=90, summary="wait for funds"))
    run.turn(1, e.TimerStarted(timer_id=2, fire_time_ms=95))
    run.turn(2, e.WorkflowSignaled(signal_name="approve"), e.WorkflowCancelRequested())
    run.turn(
        3, e.EventPublished(topic="paid", key=b"", payload=Payload(data=b"1")), e.TimerCanceled(timer_id=2)
    )
    run.turn(90, e.TimerFired(timer_id=1))
    timers = run.timeline.timers
    assert [(bar.name, bar.end_ms, bar.outcome) for bar in timers.values()] == [
        ("wait for funds", 90, Outcome.DONE),
        ("timer 2", 3, Outcome.CANCELED),
    ]
    assert run.timeline.marks == {
        (Kind.SIGNAL, "approve"): [2],
        (Kind.SIGNAL, "cancellation"): [2],
        (Kind.EVENT, "paid"): [3],
    }


def test_what_is_open_when_the_run_closes_ends_with_it() -> None:
    run = Told()
    run.turn(1, scheduled(1, worker="w"), e.TimerStarted(timer_id=2, fire_time_ms=99))
    run.turn(8, e.WorkflowTerminated(reason="enough"))
    timeline = run.timeline
    assert (timeline.run.name, timeline.run.end_ms, timeline.run.outcome) == ("Order", 8, Outcome.CANCELED)
    assert not timeline.is_open
    assert timeline.activities[1].outcome is timeline.timers[2].outcome is Outcome.ENDED
    assert timeline.end_ms(1_000) == 8


def test_a_run_that_was_blocked_shows_for_how_long() -> None:
    run = Told()
    run.turn(5, e.WorkflowBlocked(reason="nondeterminism", failure=FAILED))
    run.turn(9, e.WorkflowUnblocked())
    (blocked,) = run.timeline.run.attempts
    assert (blocked.start_ms, blocked.end_ms, blocked.outcome) == (5, 9, Outcome.BLOCKED)


def test_idle_is_when_no_worker_has_anything_and_nothing_happens() -> None:
    run = Told()
    run.turn(10, scheduled(1))
    run.turn(15, dispatched(1, attempt=1))
    run.turn(40, e.WorkflowSignaled(signal_name="hurry"))
    run.turn(50, e.ActivityCompleted(activity_id=1))
    run.turn(53, e.WorkflowSignaled(signal_name="late"))
    assert [tuple(gap) for gap in run.timeline.gaps(60)] == [(0, 10), (53, 60), (10, 15), (50, 53)]


def test_of_many_idle_times_the_longest_are_kept() -> None:
    run = Told()
    at_ms = 0
    for number in range(1, 1_001):
        at_ms += number
        run.turn(at_ms, e.WorkflowSignaled(signal_name="tick"))
    gaps = run.timeline.gaps(at_ms)
    assert len(gaps) <= 2 * MAX_GAPS_KEPT
    assert [gap.length_ms for gap in gaps[:MAX_GAPS_KEPT]] == list(range(1_000, 1_000 - MAX_GAPS_KEPT, -1))


def test_a_turn_counts_once_and_time_never_goes_back() -> None:
    run = Told()
    turn = run.turn(5, scheduled(1, worker="w"))
    run.timeline.add(turn)
    run.turn(3, e.ActivityCompleted(activity_id=1))  # an older version's clock
    bar = run.timeline.activities[1]
    assert (len(bar.attempts), bar.start_ms, bar.end_ms) == (1, 5, 5)
