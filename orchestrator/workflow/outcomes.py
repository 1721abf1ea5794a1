"""What exceptions mean: which ones code is told of, and what it means when code raises one."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator.errors import ActivityFailure, CanceledError, FailureError, NotDeterministic
from orchestrator.protocol.values import Failure, RetryState
from orchestrator.workflow.handles import ActivityHandle


class WorkflowCodeError(Exception):
    """The code of a run raised an undeclared exception or did something that is not deterministic.

    Nothing that it asked for in this activation counts, and the instance can only be closed.

    Attributes:
        failure: the exception as data, with its traceback as text.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.type}: {failure.message}" if failure.type else failure.message)
        self.failure = failure


def is_declared(error: BaseException, others: tuple[type[BaseException], ...]) -> bool:
    """Whether the error fails the workflow: ours, ``TimeoutError``, ``others``, or a group of such."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_declared(part, others) for part in error.exceptions)
    return isinstance(error, (FailureError, TimeoutError, *others))


def is_cancellation(error: BaseException) -> bool:
    """Whether the error says that something was cancelled, as such or as the cause of a failed activity."""
    if isinstance(error, ActivityFailure):
        return error.cause is not None and is_cancellation(error.cause)
    return isinstance(error, asyncio.CancelledError | CanceledError)


def activity_failure(
    handle: ActivityHandle[Any], words: str, attempt: int, retry_state: RetryState, cause: BaseException
) -> ActivityFailure:
    """What the code that awaits the activity is told."""
    return ActivityFailure(
        f"activity {handle.activity_type!r} {words} (attempt {attempt}, {retry_state})",
        activity_type=handle.activity_type,
        activity_id=handle.activity_id,
        attempt=attempt,
        retry_state=str(retry_state),
        cause=cause,
    )


def never_asked(kind: str, number: int, last: int) -> NotDeterministic:
    """History tells of something that the code did not ask for."""
    return NotDeterministic(
        f"history tells of {kind} {number}, but the code has asked for {last} so far; "
        "it was changed in a way that open runs cannot follow"
    )
