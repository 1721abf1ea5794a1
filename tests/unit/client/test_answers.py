import pytest

from orchestrator.client.answers import query_result, rejection, workflow_result
from orchestrator.codec.failures import to_failure
from orchestrator.codec.payloads import DEFAULT
from orchestrator.errors import (
    ActivityFailure,
    ApplicationError,
    CommandRejected,
    InvalidArguments,
    LimitExceeded,
    PayloadError,
    QueryFailed,
    UnknownName,
    WorkflowAlreadyStarted,
    WorkflowClosed,
    WorkflowFailure,
    WorkflowNotFound,
)
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import Failure, FailureKind


def reply(**fields: object) -> Reply:
    return Reply(client_id="c", request_id="r", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", CommandRejected.__subclasses__())
def test_every_kind_of_rejection_has_its_error(kind: type[CommandRejected]) -> None:
    error = rejection(reply(rejection=kind.reason, message="because", run_id="run-1"))
    assert type(error) is kind
    assert (str(error), error.reason) == ("because", kind.reason)


def test_the_kinds_are_those_of_the_error_tree() -> None:
    kinds: set[type[CommandRejected]] = {
        WorkflowAlreadyStarted,
        WorkflowNotFound,
        WorkflowClosed,
        UnknownName,
        InvalidArguments,
        LimitExceeded,
    }
    assert set(CommandRejected.__subclasses__()) == kinds


def test_a_taken_id_says_which_run_has_it() -> None:
    error = rejection(reply(rejection="workflow-already-started", message="taken", run_id="run-1"))
    assert isinstance(error, WorkflowAlreadyStarted)
    assert error.run_id == "run-1"


def test_a_reason_of_a_newer_engine_comes_as_the_base_class() -> None:
    error = rejection(reply(rejection="paused", message="later"))
    assert type(error) is CommandRejected
    assert error.reason == "paused"


def test_an_accepted_command_is_no_rejection() -> None:
    assert rejection(reply(run_id="run-1")) is None


def test_a_completed_run_has_its_result_decoded() -> None:
    completed = reply(status="Completed", result=DEFAULT.to_payload({"a": 1}))
    assert workflow_result(completed, "w", DEFAULT, dict[str, float]) == {"a": 1.0}
    assert workflow_result(reply(status="Completed"), "w", DEFAULT, int) is None


def test_a_result_of_another_type_is_a_payload_error() -> None:
    with pytest.raises(PayloadError):
        workflow_result(reply(status="Completed", result=DEFAULT.to_payload("x")), "w", DEFAULT, int)


@pytest.mark.parametrize("status", ["Failed", "TimedOut", "Canceled", "Terminated"])
def test_a_run_that_did_not_complete_raises_with_the_chain_of_causes(status: str) -> None:
    cause = ActivityFailure(
        "charge failed", activity_type="charge", activity_id=1, attempt=3, retry_state="x"
    )
    cause.__cause__ = ApplicationError("card declined", type="Declined")
    failed = reply(status=status, failure=to_failure(cause, DEFAULT))
    with pytest.raises(WorkflowFailure, match=rf"'w'.*{status}: charge failed") as caught:
        workflow_result(failed, "w", DEFAULT, None)
    assert caught.value.status == status
    assert isinstance(caught.value.cause, ActivityFailure)
    root = caught.value.cause.cause
    assert isinstance(root, ApplicationError)
    assert root.type == "Declined"


def test_a_query_is_answered_or_raises() -> None:
    assert query_result(reply(result=DEFAULT.to_payload("paid")), "status", DEFAULT, str) == "paid"
    assert query_result(reply(), "status", DEFAULT, str) is None
    failure = Failure(kind=FailureKind.APPLICATION, message="no such order", type="KeyError")
    with pytest.raises(QueryFailed, match="'status' failed: no such order") as caught:
        query_result(reply(failure=failure), "status", DEFAULT, str)
    with pytest.raises(QueryFailed, match=r"^the stack cannot be shown: no such order$"):
        query_result(reply(failure=failure), "__stack", DEFAULT, str)
    assert isinstance(caught.value.__cause__, ApplicationError)
