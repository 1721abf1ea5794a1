from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from msgspec.structs import asdict

from orchestrator.cli import histories
from orchestrator.protocol.events import (
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    TimerStarted,
    WorkflowStarted,
)
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.values import Failure, FailureKind, Payload, RetryState, WorkflowStatus
from orchestrator.protocol.views import History, PendingTimer, RunDescription, RunRow

FAILURE = Failure(
    kind=FailureKind.APPLICATION,
    message="declined",
    type="CardError",
    stack="File ...",
    cause=Failure(kind=FailureKind.TIMEOUT, message=""),
)


def test_a_failure_and_its_causes_are_one_line() -> None:
    assert histories.details(
        ActivityFailed(activity_id=1, failure=FAILURE, retry_state=RetryState.TIMEOUT)
    ) == ("activity_id=1, failure=CardError: declined <- timeout, retry_state=timeout")
    assert histories.failure_text(None) == ""


def test_details_show_values_as_they_were_written() -> None:
    event = ActivityScheduled(
        activity_id=2,
        activity_type="charge",
        task_queue="default",
        input=(Payload(data=b'"o-17"'), Payload(data=b"\x00", encoding="binary/plain")),
    )
    assert 'input=["o-17", binary/plain]' in histories.details(event)


def test_details_are_said_as_people_say_them() -> None:
    """Times and durations in their units, a worker by as much of its name as tells it from others."""
    event = ActivityCompleted(
        activity_id=2,
        attempt=3,
        result=Payload(data=b"", encoding="binary/null"),
        worker="0123456789abcdef",
        started_time_ms=1_700_000_000_000,
    )
    assert histories.details(event, {2: "charge"}) == (
        "activity_id=2 (charge), result=null, attempt=3, worker=01234567"
    )
    assert histories.details(TimerStarted(timer_id=1, fire_time_ms=1_700_000_000_123)) == (
        "timer_id=1, fire_time=2023-11-14 22:13:20.123Z"
    )
    scheduled = ActivityScheduled(
        activity_id=2, activity_type="charge", task_queue="q", start_to_close_ms=90_000, inbox=7
    )
    assert histories.details(scheduled, {2: "charge"}) == (
        "activity_id=2, activity_type=charge, task_queue=q, start_to_close=1 min 30 s"
    )


@pytest.mark.parametrize(
    ("row", "step", "took"),
    [
        ({"activity_type": "", "attempt": 0, "start_time_ms": 1, "close_time_ms": None}, "", ""),
        ({"activity_type": "a", "attempt": 1, "start_time_ms": 1, "close_time_ms": 501}, "a", "0.5 s"),
        (
            {"activity_type": "a", "attempt": 2, "start_time_ms": 0, "close_time_ms": 60_000},
            "a (attempt 2)",
            "1 min",
        ),
    ],
)
def test_a_row_of_a_list(row: dict[str, Any], step: str, took: str) -> None:
    assert (histories.step(row), histories.took(row)) == (step, took)


def _described(status: WorkflowStatus, **open: Any) -> str:
    row = RunRow(workflow_id="trip-1", run_id="r", workflow_type="Trip", status=status, start_time_ms=1)
    found = asdict(RunDescription(row=row, **open))
    timers = [asdict(timer) for timer in found["pending_timers"]]
    return histories.description_text(found | {"row": asdict(row), "pending_timers": timers})


def test_a_run_that_nothing_keeps_waits_in_its_code() -> None:
    shown = "'orchestrator workflow stack trip-1' shows where"
    assert _described(WorkflowStatus.RUNNING).splitlines()[-1] == (
        f"Waits        in its code, for a signal or a condition: {shown}"
    )
    timer = PendingTimer(timer_id=1, fire_time_ms=2)
    for status, open in (
        (WorkflowStatus.RUNNING, {"pending_timers": (timer,)}),
        (WorkflowStatus.BLOCKED, {}),
        (WorkflowStatus.COMPLETED, {}),
    ):
        assert "Waits" not in _described(status, **open)


def test_a_history_has_one_line_per_event() -> None:
    turn = Turn(
        epoch=1,
        seq=1,
        marks=Marks(),
        sent_through=0,
        time_ms=1_700_000_000_123,
        workflow_id="w",
        run_id="r",
        turn=1,
        first_event_id=1,
        activation=Activation.DONE,
        events=(
            WorkflowStarted(workflow_type="Order"),
            ActivityScheduled(activity_id=1, activity_type="a", task_queue="q"),
        ),
    )
    history = History(workflow_id="w", run_id="r", workflow_type="Order", turns=(turn,))
    lines = histories.history_text(history).splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "1", "2"]
    assert "WorkflowStarted" in lines[1]
    assert "workflow_type=Order" in lines[1]


def test_a_description_shows_of_open_activities_what_the_page_shows() -> None:
    item: dict[str, Any] = {
        "activity_id": 1,
        "activity_type": "charge",
        "state": "running",
        "attempt": 2,
        "maximum_attempts": 0,
        "task_queue": "pay",
        "worker": "0123456789abcdef",
        "scheduled_time_ms": 1_700_000_000_000,
        "started_time_ms": 1_700_000_001_000,
        "waiting_time_ms": None,
        "next_retry_time_ms": None,
        "last_failure": None,
    }
    waits = item | {"activity_id": 2, "state": "waiting", "worker": ""}
    waits |= {"started_time_ms": None, "waiting_time_ms": 1_700_000_002_000}
    row = {
        "workflow_id": "w",
        "run_id": "r",
        "workflow_type": "Order",
        "status": "Running",
        "start_time_ms": 1,
        "close_time_ms": None,
        "history_events": 2,
        "tags": [],
    }
    found = RunDescription(row=RunRow(**row), pending_activities=(), pending_timers=())
    shown = histories.description_text(
        msgspec.to_builtins(msgspec.structs.asdict(found)) | {"row": row, "pending_activities": [item, waits]}
    )
    table = [re.split(r" {2,}", line) for line in shown.split("\n\n")[1].splitlines()]
    day = "2023-11-14 22:13:"
    assert table == [
        ["ACTIVITY", "TYPE", "STATE", "ATTEMPT", "QUEUE", "WORKER", "SCHEDULED", "SINCE"],
        ["1", "charge", "running", "2/∞", "pay", "01234567", f"{day}20.000Z", f"{day}21.000Z"],
        ["2", "charge", "waiting", "2/∞", "pay", f"{day}20.000Z", f"{day}22.000Z"],
    ]
