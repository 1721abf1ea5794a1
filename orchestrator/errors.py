"""Every error that users of this package may see.

Errors are named by who must act::

    OrchestratorError
    ├── ConfigError                  the person who starts a process: a bad option, folder, port or module
    │   ├── ModuleLoadError          a workflows/activities module does not import
    │   ├── DataFolderInUse          another process holds the data folder
    │   └── PortInUse                another process holds the port
    ├── UsageError                   the author of workflow, activity or client code
    │   ├── DefinitionError          a class or function is declared wrongly
    │   ├── NotInWorkflow            a workflow API was called outside of a workflow
    │   ├── ReadOnlyViolation        a query tried to change the workflow
    │   ├── NotDeterministic         workflow code used something that cannot be replayed
    │   ├── QueryError               what lists are asked with is no query; ``column`` says where
    │   └── PayloadError             a value cannot be encoded, decoded, or is too large
    ├── CommandRejected              the caller of a client: the engine refused the command
    │   ├── WorkflowAlreadyStarted   the id is in use, or may not be used again
    │   ├── WorkflowNotFound         no such id (or run)
    │   ├── WorkflowClosed           the run is closed already
    │   ├── UnknownName              no such workflow type, signal or query
    │   ├── InvalidArguments         the arguments are not those that a handler declares
    │   └── LimitExceeded            a limit with a name was reached
    ├── QueryFailed                  the query handler raised, or the run is blocked
    ├── Unavailable                  nobody: no answer in time, so the outcome is unknown
    ├── LogError                     the operator: the log refused or lost something
    │   ├── RecordRefused            a record was refused for good (size, missing topic, permission)
    │   └── AppenderFailed           the outcome of an append is unknown; claim again
    └── FailureError                 the business: a failure that crossed a process boundary (see below)
        ├── ApplicationError         raised by activity or workflow code
        ├── CanceledError            the operation was cancelled
        ├── TerminatedError          the workflow was terminated
        ├── TimeoutFailure           a timeout of an activity or a workflow passed
        ├── ActivityFailure          an activity failed for good; ``cause`` says why
        ├── WorkerLostFailure        the worker that ran the attempt is gone
        └── WorkflowFailure          ``result()``: the workflow did not complete; ``cause`` says why
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

MAX_RETRY_DELAY_S: Final = 10 * 365 * 86_400.0
"""A longer delay before the next attempt is taken for a mistake of units."""


class OrchestratorError(Exception):
    """Base of every error of this package."""


class ConfigError(OrchestratorError):
    """The process cannot start as configured."""


class ModuleLoadError(ConfigError):
    """A module with workflows or activities does not import."""


class DataFolderInUse(ConfigError):
    """Another process holds the lock on the data folder."""


class PortInUse(ConfigError):
    """Another process listens on the port."""


class UsageError(OrchestratorError):
    """Code calls this package wrongly."""


class DefinitionError(UsageError):
    """A workflow or activity is declared wrongly."""


class NotInWorkflow(UsageError):
    """A workflow API was called outside of a workflow."""


class ReadOnlyViolation(UsageError):
    """A query (or validator) tried to change the workflow."""


class NotDeterministic(UsageError):
    """Workflow code did something that cannot be replayed.

    Raised for threads, files and the like inside a workflow, and when a replay finds other actions
    than the history holds; then the message shows what was expected and what was found.
    """


class QueryError(UsageError):
    """What runs are looked for with is not a query.

    Attributes:
        column: where the reader stumbled, from 1 on; 0 if it is about the whole.
    """

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(message)
        self.column = column


class PayloadError(UsageError):
    """A value cannot be encoded or decoded, or is larger than a payload may be."""


class CommandRejected(OrchestratorError):
    """The engine refused a command.

    Attributes:
        reason: the rejection's stable code, e.g. ``"workflow-already-started"``.
    """

    reason = "rejected"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class WorkflowAlreadyStarted(CommandRejected):
    """The workflow id has an open run, or its reuse policy forbids a new one.

    Attributes:
        run_id: the run that stands in the way, if known.
    """

    reason = "workflow-already-started"

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class WorkflowNotFound(CommandRejected):
    """There is no such workflow id or run."""

    reason = "workflow-not-found"


class WorkflowClosed(CommandRejected):
    """The run is closed and takes no more commands."""

    reason = "workflow-closed"


class UnknownName(CommandRejected):
    """There is no such workflow type, signal or query."""

    reason = "unknown-name"


class InvalidArguments(CommandRejected):
    """The arguments do not fit the handler: there are too many or too few, or one is of another type."""

    reason = "invalid-arguments"


class LimitExceeded(CommandRejected):
    """A limit was reached; the message names it."""

    reason = "limit-exceeded"


class QueryFailed(OrchestratorError):
    """A query could not be answered: its handler raised, or the run is blocked."""


class Unavailable(OrchestratorError):
    """No answer came in time. The outcome is unknown: repeat the call with the same request id."""


class LogError(OrchestratorError):
    """The log refused or lost something."""


class RecordRefused(LogError):
    """The log refused a record for good: it is too large, its topic is missing or not permitted."""


class AppenderFailed(LogError):
    """Whether an append took place is unknown. The owner claims its partition anew."""


class FailureError(OrchestratorError):
    """A failure that crosses process boundaries; ``cause`` is the failure behind it, if any.

    Attributes:
        message: what happened, in words.
    """

    def __init__(self, message: str, *, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.message = message
        if cause is not None:
            self.__cause__ = cause

    @property
    def cause(self) -> BaseException | None:
        """The failure behind this one."""
        return self.__cause__


class ApplicationError(FailureError):
    """A failure of the business. Raise it in activities and workflows.

    Args:
        message: what happened.
        details: values that travel with the failure (JSON, dataclasses, structs, bytes).
        type: a name to match in ``RetryPolicy.non_retryable_error_types``; default the class name.
        non_retryable: no further attempt is made.
        next_retry_delay: seconds or ``timedelta`` until the next attempt, instead of the policy's delay. The
            attribute of that name is always in seconds, or None.

    Raises:
        UsageError: ``next_retry_delay`` is no duration, negative, or longer than ten years.
    """

    def __init__(
        self,
        message: str,
        *details: Any,
        type: str | None = None,
        non_retryable: bool = False,
        next_retry_delay: timedelta | float | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type if type is not None else self.__class__.__name__
        self.details = details
        self.non_retryable = non_retryable
        self.next_retry_delay = retry_delay_s(next_retry_delay)


def retry_delay_s(delay: Any) -> float | None:
    """The delay before the next attempt in seconds; None stays None.

    Raises:
        UsageError: it is no duration, negative, or longer than ``MAX_RETRY_DELAY_S``.
    """
    if delay is None:
        return None
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise UsageError(f"next_retry_delay is {delay!r}; give seconds or a timedelta")
    if not 0 <= seconds <= MAX_RETRY_DELAY_S:
        raise UsageError(
            f"next_retry_delay is {delay!r}; it must be between 0 and {MAX_RETRY_DELAY_S / 86_400:.0f} days"
        )
    return float(seconds)


class CanceledError(FailureError):
    """The operation was cancelled."""


class TerminatedError(FailureError):
    """The workflow was terminated."""


class TimeoutFailure(FailureError):
    """A timeout passed.

    Attributes:
        timeout_type: ``"start-to-close"``, ``"schedule-to-start"``, ``"schedule-to-close"``,
            ``"heartbeat"`` or ``"run"``.
    """

    def __init__(self, message: str, *, timeout_type: str, cause: BaseException | None = None) -> None:
        super().__init__(message, cause=cause)
        self.timeout_type = timeout_type


class WorkerLostFailure(FailureError):
    """The worker that ran the attempt stopped beating."""


class ActivityFailure(FailureError):
    """An activity failed for good; ``cause`` says why.

    Attributes:
        activity_type: the activity's name.
        activity_id: its number within the run.
        attempt: the last attempt, from 1.
        retry_state: why there is no further attempt, e.g. ``"maximum-attempts-reached"``.
    """

    def __init__(
        self,
        message: str,
        *,
        activity_type: str,
        activity_id: int,
        attempt: int,
        retry_state: str,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message, cause=cause)
        self.activity_type = activity_type
        self.activity_id = activity_id
        self.attempt = attempt
        self.retry_state = retry_state


class WorkflowFailure(FailureError):
    """The workflow did not complete; ``cause`` says why.

    Attributes:
        status: the run's final status, e.g. ``"Failed"`` or ``"Canceled"``.
    """

    def __init__(self, message: str, *, status: str, cause: BaseException | None = None) -> None:
        super().__init__(message, cause=cause)
        self.status = status
