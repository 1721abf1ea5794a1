"""What an answer means to the caller: a value, or which error. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.codec.failures import from_failure
from orchestrator.codec.payloads import PayloadConverter
from orchestrator.errors import (
    CommandRejected,
    InvalidArguments,
    LimitExceeded,
    QueryFailed,
    UnknownName,
    WorkflowAlreadyStarted,
    WorkflowClosed,
    WorkflowFailure,
    WorkflowNotFound,
)
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.workflow.stack import STACK_QUERY

_REJECTIONS: dict[str, Callable[[Reply], CommandRejected]] = {
    WorkflowAlreadyStarted.reason: lambda reply: WorkflowAlreadyStarted(
        reply.message, run_id=reply.run_id or None
    ),
    WorkflowNotFound.reason: lambda reply: WorkflowNotFound(reply.message),
    WorkflowClosed.reason: lambda reply: WorkflowClosed(reply.message),
    UnknownName.reason: lambda reply: UnknownName(reply.message),
    InvalidArguments.reason: lambda reply: InvalidArguments(reply.message),
    LimitExceeded.reason: lambda reply: LimitExceeded(reply.message),
}


def rejection(reply: Reply) -> CommandRejected | None:
    """The error of a refused command; None if it was accepted. Newer reasons come as the base class."""
    if not reply.rejection:
        return None
    known = _REJECTIONS.get(reply.rejection)
    return known(reply) if known else CommandRejected(reply.message, reason=reply.rejection)


def workflow_result(reply: Reply, workflow_id: str, converter: PayloadConverter, hint: Any) -> Any:
    """The result of a run.

    Raises:
        WorkflowFailure: it did not complete.
        PayloadError: the result is not what ``hint`` asks for.
    """
    if reply.status == WorkflowStatus.COMPLETED:
        return None if reply.result is None else converter.from_payload(reply.result, hint)
    cause = None if reply.failure is None else from_failure(reply.failure, converter)
    because = f": {cause}" if cause is not None else ""
    raise WorkflowFailure(
        f"workflow {workflow_id!r} did not complete, its status is {reply.status}{because}",
        status=reply.status,
        cause=cause,
    )


def query_result(reply: Reply, query_name: str, converter: PayloadConverter, hint: Any) -> Any:
    """The answer of a query.

    Raises:
        QueryFailed: its handler raised, or the run is blocked.
        PayloadError: the answer is not what ``hint`` asks for.
    """
    if reply.failure is not None:
        cause = from_failure(reply.failure, converter)
        what = "the stack cannot be shown" if query_name == STACK_QUERY else f"query {query_name!r} failed"
        raise QueryFailed(f"{what}: {cause}") from cause
    return None if reply.result is None else converter.from_payload(reply.result, hint)
