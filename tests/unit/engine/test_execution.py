"""The life of a run: its table, starts, cancellation, limits and closes."""

from __future__ import annotations

import pytest

from orchestrator.engine import execution
from orchestrator.engine.state import MAX_TIME_MS, DeadlineKind
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.values import (
    Failure,
    FailureKind,
    IdReusePolicy,
    Payload,
    TimeoutType,
    WorkflowStatus,
)

from .kit import BOOM, ID, NOW_MS, RUN_ID, STARTED, Story, given, on_worker, scheduled

RUNNING, BLOCKED = WorkflowStatus.RUNNING, WorkflowStatus.BLOCKED
BLOCK = e.WorkflowBlocked(reason="Bug", failure=BOOM)

STATUSES: dict[WorkflowStatus | None, tuple[e.Event, ...]] = {
    RUNNING: (),
    BLOCKED: (BLOCK,),
    WorkflowStatus.COMPLETED: (e.WorkflowCompleted(),),
    WorkflowStatus.FAILED: (e.WorkflowFailed(failure=BOOM),),
    WorkflowStatus.CANCELED: (e.WorkflowCanceled(),),
    WorkflowStatus.TERMINATED: (e.WorkflowTerminated(),),
    WorkflowStatus.TIMED_OUT: (e.WorkflowTimedOut(failure=BOOM),),
}
SAMPLES: list[e.Event] = [
    STARTED,
    e.WorkflowSignaled(signal_name="approve"),
    e.WorkflowCancelRequested(),
    BLOCK,
    e.WorkflowUnblocked(),
    *(event for events in list(STATUSES.values())[2:] for event in events),
]
CLOSED = [status for status in STATUSES if status and not status.is_open]


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("status", STATUSES)
def test_every_transition_is_as_the_table_says(status: WorkflowStatus, event: e.Event) -> None:
    story = given(*STATUSES[status])
    assert story.state.status is status
    after = execution.TRANSITIONS.get((status, type(event)))
    if after is None:
        with pytest.raises(ValueError, match="impossible"):
            story.given(event)
    else:
        assert story.given(event).state.status is after


def test_the_samples_reach_every_row_of_the_table() -> None:
    rows = {(status, type(event)) for status in (None, *STATUSES) for event in SAMPLES}
    assert execution.TRANSITIONS.keys() <= rows
    assert Story().given(STARTED).state.status is execution.TRANSITIONS[None, e.WorkflowStarted]


@pytest.mark.parametrize("status", CLOSED)
def test_nothing_of_a_closed_run_is_open(status: WorkflowStatus) -> None:
    things = (on_worker(1, start_to_close_ms=5), scheduled(2, schedule_to_start_ms=5), on_worker(3))
    story = Story().given(
        e.WorkflowStarted(workflow_type="Order", run_timeout_ms=60_000),
        *things,
        e.TimerStarted(timer_id=1, fire_time_ms=NOW_MS + 5),
    )
    assert len(story.kinds()) == 4
    story.given(*STATUSES[status])
    assert (story.standing(), story.slots()) == ([], [])
    assert (story.state.activities, story.state.timers) == ({}, {})
    assert not story.state.is_open
    assert story.state.close_time_ms == NOW_MS


@pytest.mark.parametrize("event", [scheduled(), e.TimerStarted(timer_id=1, fire_time_ms=1)])
def test_nothing_begins_in_a_closed_run(event: e.Event) -> None:
    with pytest.raises(ValueError, match="is closed"):
        given(e.WorkflowCompleted()).given(event)


def test_blocking_twice_keeps_the_newer_reason_and_unblocking_forgets_it() -> None:
    story = given(BLOCK)
    newer = Failure(kind=FailureKind.APPLICATION, message="other")
    assert story.given(e.WorkflowBlocked(reason="x", failure=newer)).state.blocked == newer
    assert story.given(e.WorkflowUnblocked()).state.blocked is None


# ------------------------------------------------------------------------------------------- starts


def start(policy: IdReusePolicy = IdReusePolicy.ALLOW_DUPLICATE) -> c.StartWorkflow:
    return c.StartWorkflow(
        workflow_id=ID,
        workflow_type="Order",
        input=(Payload(data=b"7"),),
        id_reuse_policy=policy,
        run_timeout_ms=5,
        identity="me",
        summary="s",
        memo={"m": Payload(data=b"1")},
        search_attributes={"a": Payload(data=b"2")},
    )


def test_a_start_records_what_was_asked_and_the_flags() -> None:
    flags = e.RunFlags(loop=1, python="3.11")
    assert execution.decide_start(None, start(), NOW_MS, flags) == (
        e.WorkflowStarted(
            workflow_type="Order",
            input=(Payload(data=b"7"),),
            run_timeout_ms=5,
            identity="me",
            flags=flags,
            summary="s",
            memo={"m": Payload(data=b"1")},
            search_attributes={"a": Payload(data=b"2")},
        ),
    )


@pytest.mark.parametrize("policy", IdReusePolicy)
@pytest.mark.parametrize("status", STATUSES)
def test_whether_an_id_may_be_used_again(status: WorkflowStatus, policy: IdReusePolicy) -> None:
    allowed = {
        IdReusePolicy.ALLOW_DUPLICATE: set(CLOSED),
        IdReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY: set(CLOSED) - {WorkflowStatus.COMPLETED},
        IdReusePolicy.REJECT_DUPLICATE: set(),
    }[policy]
    decided = execution.decide_start(given(*STATUSES[status]).state, start(policy), NOW_MS, e.RunFlags())
    if status in allowed:
        assert isinstance(decided, tuple)
    else:
        assert isinstance(decided, c.Rejection)
        assert (decided.reason, decided.run_id) == ("workflow-already-started", RUN_ID)


# --------------------------------------------------------------------- commands to open and closed runs

COMMANDS = [
    c.SignalWorkflow(workflow_id=ID, signal_name="go"),
    c.CancelWorkflow(workflow_id=ID),
    c.TerminateWorkflow(workflow_id=ID),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("status", CLOSED)
def test_a_closed_run_refuses(status: WorkflowStatus, command: c.Command) -> None:
    refused = given(*STATUSES[status]).when(command).rejected("workflow-closed")
    assert status.value in refused.message


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_an_unknown_id_or_run_refuses(command: c.Command) -> None:
    story = given()
    wrong = type(command)(**{"workflow_id": ID, "run_id": "other"} | _own(command))
    assert RUN_ID in story.when(wrong).rejected("workflow-not-found").message
    story.state = None  # type: ignore[assignment]
    assert "unknown" in story.when(command).rejected("workflow-not-found").message


def _own(command: c.Command) -> dict[str, str]:
    return {"signal_name": "go"} if isinstance(command, c.SignalWorkflow) else {}


@pytest.mark.parametrize("before", [(), (BLOCK,)], ids=["running", "blocked"])
def test_signal_cancel_and_terminate_reach_open_runs(before: tuple[e.Event, ...]) -> None:
    story = given(*before)
    story.when(c.SignalWorkflow(workflow_id=ID, signal_name="go", identity="me"))
    story.then(e.WorkflowSignaled(signal_name="go", identity="me"))
    cancel = c.CancelWorkflow(workflow_id=ID, run_id=RUN_ID, reason="enough", identity="me")
    story.when(cancel).then(e.WorkflowCancelRequested(reason="enough", identity="me"))
    story.when(cancel).nothing()
    story.when(c.TerminateWorkflow(workflow_id=ID, reason="now", identity="me"))
    story.then(e.WorkflowTerminated(reason="now", identity="me"))


def test_a_terminated_run_names_the_deliveries_that_are_with_workers() -> None:
    story = given(on_worker(1), scheduled(2))
    event = story.when(c.TerminateWorkflow(workflow_id=ID)).happens()
    abandoned, closed = story.decided  # type: ignore[misc]
    assert [d.activity_id for d in abandoned.dispatches] == [1]
    assert isinstance(event, e.WorkflowTerminated)
    assert event is closed


# ---------------------------------------------------------------------------------------------- limits


def test_the_run_timeout_closes_and_abandons() -> None:
    story = Story().given(e.WorkflowStarted(workflow_type="Order", run_timeout_ms=60_000), on_worker())
    story.when_due(DeadlineKind.RUN_TIMEOUT, 0, at_ms=NOW_MS + 59_999).nothing()
    event = story.when_due(DeadlineKind.RUN_TIMEOUT, 0).happens()
    assert [type(event) for event in story.turns[-1].events] == [e.ActivitiesAbandoned, e.WorkflowTimedOut]
    assert event.failure.timeout_type is TimeoutType.RUN
    assert "60000 ms" in event.failure.message
    story.when_due(DeadlineKind.RUN_TIMEOUT, 0, at_ms=NOW_MS + 60_000).nothing()


@pytest.mark.parametrize(("timeout_ms", "at_ms"), [(-(2**62), NOW_MS), (2**63 - 1, MAX_TIME_MS)])
def test_a_run_timeout_of_a_foreign_client_fits_into_rows(timeout_ms: int, at_ms: int) -> None:
    story = Story().given(e.WorkflowStarted(workflow_type="Order", run_timeout_ms=timeout_ms))
    assert story.state.run_deadline_ms == at_ms


def test_a_run_may_have_as_many_events_as_the_limit_says_and_no_more() -> None:
    story = given(on_worker())
    story.state.next_event_id = execution.MAX_EVENTS + 1
    assert execution.decide_limits(story.state) == ()
    story.state.next_event_id = execution.MAX_EVENTS + 2
    abandoned, closed = execution.decide_limits(story.state)
    assert isinstance(abandoned, e.ActivitiesAbandoned)
    assert isinstance(closed, e.WorkflowTerminated)
    assert "51201 events" in closed.reason
    assert closed.identity == "engine"
    assert execution.decide_limits(given(e.WorkflowCompleted()).state) == ()


@pytest.mark.parametrize(
    ("close", "kind", "message"),
    [
        (e.WorkflowFailed(failure=BOOM), FailureKind.APPLICATION, "boom"),
        (e.WorkflowTimedOut(failure=BOOM), FailureKind.APPLICATION, "boom"),
        (e.WorkflowTerminated(reason="why"), FailureKind.TERMINATED, "why"),
        (e.WorkflowTerminated(), FailureKind.TERMINATED, "the workflow was terminated"),
        (e.WorkflowCanceled(), FailureKind.CANCELED, "the workflow was cancelled"),
    ],
)
def test_why_a_run_closed(close: e.Event, kind: FailureKind, message: str) -> None:
    failure = execution.close_failure(close)
    assert failure is not None
    assert (failure.kind, failure.message) == (kind, message)


def test_a_completed_or_open_run_has_no_failure() -> None:
    assert execution.close_failure(e.WorkflowCompleted()) is None
    assert execution.close_failure(None) is None
