"""What is said to whoever sent a command: an answer, a refusal, a result; and what is noted instead of a
report that cannot be taken.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.coordinator.drafts import Answer
from orchestrator.engine import execution
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.tasks import ActivityTask, Reply
from orchestrator.protocol.values import MAX_PAYLOAD_BYTES, Failure, Payload, WorkflowStatus


def answers(command: c.CommandBase, reply: Reply) -> list[Answer]:
    """A reply, addressed to who sent the command; none if no answer was asked for."""
    if command.reply_to is None:
        return []
    client_id, request_id = command.reply_to.client_id, command.request_id
    return [
        Answer(command.reply_to, msgspec.structs.replace(reply, client_id=client_id, request_id=request_id))
    ]


def rejected(rejection: c.Rejection) -> Reply:
    """The answer to a refused command."""
    return Reply(
        client_id="",
        request_id="",
        rejection=rejection.reason,
        message=rejection.message,
        run_id=rejection.run_id,
    )


def result_reply(run_id: str, status: WorkflowStatus, close: e.Event | None) -> Reply:
    """The answer to somebody who awaits the result of a closed run."""
    return Reply(
        client_id="",
        request_id="",
        run_id=run_id,
        status=status.value,
        result=close.result if isinstance(close, e.WorkflowCompleted) else None,
        failure=execution.close_failure(close),
        tags=getattr(close, "tags", ()),
    )


def too_large(command: Any) -> c.Rejection | None:
    """Why a command's payloads are refused; None if they are small enough."""
    size = 0
    for name in _SIZED_OF[type(command)]:
        if value := getattr(command, name):
            size += _bytes_of(value)
    if size <= MAX_PAYLOAD_BYTES:
        return None
    return c.Rejection(
        reason="limit-exceeded",
        message=(
            f"the payloads of {type(command).__name__} have {size} bytes, at most {MAX_PAYLOAD_BYTES} are "
            f"allowed; store large data elsewhere and pass a reference"
        ),
    )


_SIZED = ("input", "result", "details", "failure", "memo", "search_attributes")
"""The fields of commands that hold what users say."""

_SIZED_OF: dict[type[c.CommandBase], tuple[str, ...]] = {
    kind: tuple(name for name in _SIZED if name in kind.__struct_fields__) for kind in c.Command.__args__
}


def _bytes_of(value: Any) -> int:
    if not value:
        return 0
    if isinstance(value, Payload):
        return len(value.data) + len(value.encoding)
    if isinstance(value, Failure):
        text = len(value.message.encode()) + len(value.stack.encode())
        return text + _bytes_of(value.details) + _bytes_of(value.cause)
    return sum([_bytes_of(part) for part in (value.values() if isinstance(value, dict) else value)])


def failed_instead(command: c.ActivityCommand, failure: Failure) -> c.FailActivity:
    """The report of a failure, in place of a result that cannot be taken."""
    return c.FailActivity(
        request_id=command.request_id,
        identity=command.identity,
        workflow_id=command.workflow_id,
        run_id=command.run_id,
        activity_id=command.activity_id,
        attempt=command.attempt,
        dispatch=command.dispatch,
        worker=command.worker,
        started_time_ms=command.started_time_ms,
        failure=failure,
    )


def failed_report(task: ActivityTask, failure: Failure) -> c.FailActivity:
    """The report of a failure that no worker saw."""
    return c.FailActivity(
        identity="engine",
        workflow_id=task.workflow_id,
        run_id=task.run_id,
        activity_id=task.activity_id,
        attempt=task.attempt,
        dispatch=task.dispatch,
        worker=task.worker,
        failure=failure,
    )
