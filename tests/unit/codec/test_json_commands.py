from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from orchestrator.codec import avro, json_commands
from orchestrator.codec.avro import DecodeError
from orchestrator.protocol.commands import (
    CompleteActivity,
    FailActivity,
    SignalWorkflow,
    StartWorkflow,
    TerminateWorkflow,
)
from orchestrator.protocol.values import Failure, FailureKind, IdReusePolicy, Payload, ReplyTo

REPORT = {
    "workflow_id": "w",
    "run_id": "r",
    "activity_id": 1,
    "attempt": 2,
    "dispatch": 3,
    "worker": "me",
}


def command(**fields: Any) -> Any:
    return json_commands.decode(json.dumps(fields).encode())


def test_values_are_plain_and_kept_byte_for_byte() -> None:
    found = json_commands.decode(
        b'{"command": "StartWorkflow", "workflow_id": "o-17", "workflow_type": "Order", '
        b'"input": ["o-17", 4200.10, 123456789012345678901234567890, {"a": [null]}], "memo": {"k": true}}'
    )

    assert found == StartWorkflow(
        workflow_id="o-17",
        workflow_type="Order",
        input=(
            Payload(data=b'"o-17"'),
            Payload(data=b"4200.10"),
            Payload(data=b"123456789012345678901234567890"),
            Payload(data=b'{"a": [null]}'),
        ),
        memo={"k": Payload(data=b"true")},
    )


def test_what_is_not_said_is_the_default() -> None:
    assert command(command="SignalWorkflow", workflow_id="w", signal_name="approve") == SignalWorkflow(
        workflow_id="w", signal_name="approve"
    )


def test_all_fields_are_taken() -> None:
    assert command(
        command="StartWorkflow",
        workflow_id="w",
        workflow_type="T",
        request_id="q",
        identity="me",
        reply_to={"partition": 3, "client_id": "c"},
        headers={"a": "b"},
        id_reuse_policy="reject-duplicate",
        run_timeout_ms=5,
        summary="s",
        await_result=True,
    ) == StartWorkflow(
        workflow_id="w",
        workflow_type="T",
        request_id="q",
        identity="me",
        reply_to=ReplyTo(partition=3, client_id="c"),
        headers={"a": "b"},
        id_reuse_policy=IdReusePolicy.REJECT_DUPLICATE,
        run_timeout_ms=5,
        summary="s",
        await_result=True,
    )
    assert command(
        command="TerminateWorkflow", workflow_id="w", reason="r", details=[1]
    ) == TerminateWorkflow(workflow_id="w", reason="r", details=(Payload(data=b"1"),))


def test_a_result_of_null_is_a_result_and_a_missing_one_is_none() -> None:
    assert command(command="CompleteActivity", **REPORT, result=None).result == Payload(data=b"null")
    assert command(command="CompleteActivity", **REPORT) == CompleteActivity(**REPORT)  # type: ignore[arg-type]


def test_a_failure_with_its_cause() -> None:
    failure = {
        "message": "no stock",
        "type": "NoStock",
        "non_retryable": True,
        "details": [{"left": 0}],
        "cause": {"message": "empty shelf"},
    }

    assert command(command="FailActivity", **REPORT, failure=failure) == FailActivity(
        **REPORT,  # type: ignore[arg-type]
        failure=Failure(
            kind=FailureKind.APPLICATION,
            message="no stock",
            type="NoStock",
            non_retryable=True,
            details=(Payload(data=b'{"left": 0}'),),
            cause=Failure(kind=FailureKind.APPLICATION, message="empty shelf"),
        ),
    )


@pytest.mark.parametrize("value", [b'"\xff"', b"nul", b"[1,]", b'{"a"}', b"01", b'"\x01"'])
def test_a_value_that_is_no_json_is_refused(value: bytes) -> None:
    data = b'{"command": "SignalWorkflow", "workflow_id": "w", "signal_name": "s", "input": [' + value + b"]}"

    with pytest.raises(DecodeError, match="JSON is no command"):
        avro.decode_command(data)


def test_a_field_that_is_not_known_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `run_timeout`"):
        command(command="StartWorkflow", workflow_id="w", workflow_type="T", run_timeout=5)


def test_only_coordinators_find_workers_lost() -> None:
    with pytest.raises(msgspec.ValidationError, match="WorkerLost"):
        command(command="WorkerLost", worker="w", partition=0)
