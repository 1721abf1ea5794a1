"""What goes over HTTP between an engine and everybody else: paths, limits, bodies and errors. No I/O.

Both sides use this file: ``orchestrator.api`` serves what ``orchestrator.log.http`` and the CLI ask for.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator import errors as e
from orchestrator.log.aio import DeliveredBeat, DeliveredTask
from orchestrator.protocol import commands as c
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import Value

PREFIX = "/api/v1"
"""Of all paths. A change that old clients would not survive gets a new one."""

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of one request: a batch of commands, or one command whose 256 KiB grew sixfold by JSON's escapes."""

MAX_BATCH_COMMANDS = 500
"""Sent in one request: some milliseconds of the engine's work, so that a batch delays nobody."""

MAX_WAIT_S = 20.0
"""The longest a request may wait for something to arrive: below the idle limits of common proxies."""

HttpCommand = (
    c.StartWorkflow
    | c.SignalWorkflow
    | c.QueryWorkflow
    | c.CancelWorkflow
    | c.TerminateWorkflow
    | c.AwaitResult
    | c.CompleteActivity
    | c.FailActivity
    | c.ReportActivityCanceled
    | c.ReturnActivity
)
"""The commands that come from outside. A lost worker is the engine's own finding."""


class Problem(Value, frozen=True, kw_only=True):
    """The body of every answer that is an error.

    ``error`` is a stable code for programs, ``message`` is for people; ``run_id`` is the run that stands
    in the way of a start, if it is known.
    """

    error: str
    message: str
    run_id: str = ""


class Sent(Value, frozen=True, kw_only=True):
    """What became of each command of a batch, in order: None if it is durable, else why it is not."""

    problems: tuple[Problem | None, ...]


BOOKMARK_HEADER = "orchestrator-bookmark"
"""Header of an answer to a command: where on history that stands; reads take it as ``bookmark``."""


class Appended(Value, frozen=True, kw_only=True):
    """A beat is durable, at this offset of ``workers``."""

    offset: int


class Opened(Value, frozen=True, kw_only=True):
    """A stream was opened, and begins at ``offset`` of ``partition``."""

    partition: int
    offset: int


class Batch(Value, frozen=True, kw_only=True):
    """What a stream brought.

    ``number`` names this batch; the next request gives it as ``after``, which acknowledges the batch. A
    request that repeats the ``after`` of an earlier one gets the same batch again, so a lost answer
    loses nothing. ``offset`` is the offset after the last record that was looked at.
    """

    number: int
    offset: int


class Replies(Batch, frozen=True, kw_only=True):
    """Replies to one client."""

    messages: tuple[Reply, ...] = ()


class Tasks(Batch, frozen=True, kw_only=True):
    """Tasks for one worker incarnation."""

    messages: tuple[DeliveredTask, ...] = ()


class Beats(Batch, frozen=True, kw_only=True):
    """Beats of everybody."""

    messages: tuple[DeliveredBeat, ...] = ()


class Row(NamedTuple):
    """How one class of errors is told: ``code`` to programs, ``status`` to HTTP."""

    cls: type[e.OrchestratorError]
    code: str
    status: int


ERRORS: tuple[Row, ...] = (
    Row(e.WorkflowNotFound, e.WorkflowNotFound.reason, 404),
    Row(e.UnknownName, e.UnknownName.reason, 404),
    Row(e.WorkflowAlreadyStarted, e.WorkflowAlreadyStarted.reason, 409),
    Row(e.WorkflowClosed, e.WorkflowClosed.reason, 409),
    Row(e.InvalidArguments, e.InvalidArguments.reason, 422),
    Row(e.LimitExceeded, e.LimitExceeded.reason, 429),
    Row(e.CommandRejected, e.CommandRejected.reason, 409),
    Row(e.QueryFailed, "query-failed", 422),
    Row(e.PayloadError, "payload-refused", 413),
    Row(e.RecordRefused, "record-refused", 413),
    Row(e.UsageError, "invalid-request", 422),
    Row(e.Unavailable, "unavailable", 503),
    Row(e.LogError, "log-failed", 503),
    Row(e.OrchestratorError, "error", 500),
)
"""Every error of a request, subclasses before their bases. Read forwards by servers, backwards by clients."""

STREAM_GONE = "stream-gone"
"""The engine does not know this stream: it was restarted, or nobody asked for long. Open another one."""

_CLASSES = {row.code: row.cls for row in ERRORS}


def problem_of(error: e.OrchestratorError) -> tuple[int, Problem]:
    """The status and the body that tell of an error."""
    row = next(row for row in ERRORS if isinstance(error, row.cls))
    code = error.reason if isinstance(error, e.CommandRejected) else row.code
    return row.status, Problem(error=code, message=str(error), run_id=getattr(error, "run_id", None) or "")


def error_of(problem: Problem, status: int) -> e.OrchestratorError:
    """The error that a body tells of. Codes of newer engines come as the class that their status means."""
    if problem.error == STREAM_GONE:
        return e.LogError(problem.message)
    if problem.error == e.WorkflowAlreadyStarted.reason:
        return e.WorkflowAlreadyStarted(problem.message, run_id=problem.run_id or None)
    cls = _CLASSES.get(problem.error)
    if cls is None:
        cls = e.Unavailable if status >= 500 else e.UsageError
    return cls(problem.message)
