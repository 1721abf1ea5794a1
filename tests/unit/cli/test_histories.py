from __future__ import annotations

from orchestrator.cli import histories
from orchestrator.protocol.events import ActivityFailed, ActivityScheduled, WorkflowStarted
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.values import Failure, FailureKind, Payload, RetryState
from orchestrator.protocol.views import History

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
    ) == ("activity_id=1, failure=CardError: declined <- timeout, retry_state=timeout, attempt=1")
    assert histories.failure_text(None) == ""


def test_details_show_values_as_they_were_written() -> None:
    event = ActivityScheduled(
        activity_id=2,
        activity_type="charge",
        task_queue="default",
        input=(Payload(data=b'"o-17"'), Payload(data=b"\x00", encoding="binary/plain")),
    )
    assert 'input=["o-17", binary/plain]' in histories.details(event)


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
