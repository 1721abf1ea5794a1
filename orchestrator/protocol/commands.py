"""Commands: what somebody asks of the engine. Imperative; each may be refused.

Every command carries ``request_id`` (a repeat with the same id has one effect) and ``identity`` (who
asks). Commands to a workflow name it by ``workflow_id``; ``run_id`` "" means its current run. The
reports of workers name the delivery they answer: activity, attempt and dispatch.
"""

from __future__ import annotations

from orchestrator.protocol.values import (
    Failure,
    IdReusePolicy,
    Payload,
    Payloads,
    ReplyTo,
    Value,
)


class CommandBase(Value, tag=True, tag_field="command", frozen=True, kw_only=True):
    """What all commands have in common."""

    request_id: str = ""
    identity: str = ""
    reply_to: ReplyTo | None = None
    headers: dict[str, str] = {}


class WorkflowCommand(CommandBase, frozen=True, kw_only=True):
    """A command to one workflow id."""

    workflow_id: str
    run_id: str = ""


class StartWorkflow(WorkflowCommand, frozen=True, kw_only=True):
    """Start a run. Answered with its run id.

    With ``await_result`` the answer comes when the run is closed, as if ``AwaitResult`` had followed; a
    repeat of the command is answered with the run id.
    """

    workflow_type: str
    input: Payloads = ()
    id_reuse_policy: IdReusePolicy = IdReusePolicy.ALLOW_DUPLICATE
    run_timeout_ms: int | None = None
    memo: dict[str, Payload] = {}
    search_attributes: dict[str, Payload] = {}
    summary: str = ""
    await_result: bool = False


class SignalWorkflow(WorkflowCommand, frozen=True, kw_only=True):
    """Send a signal to an open run."""

    signal_name: str
    input: Payloads = ()


class QueryWorkflow(WorkflowCommand, frozen=True, kw_only=True):
    """Ask a run for something, without changing it. ``__stack`` tells where its code waits."""

    query_name: str
    input: Payloads = ()


class CancelWorkflow(WorkflowCommand, frozen=True, kw_only=True):
    """Ask an open run to cancel itself; its code may clean up first."""

    reason: str = ""


class TerminateWorkflow(WorkflowCommand, frozen=True, kw_only=True):
    """Close an open run at once; its code hears nothing of it."""

    reason: str = ""
    details: Payloads = ()


class AwaitResult(WorkflowCommand, frozen=True, kw_only=True):
    """Answer when the run is closed. Kept for at most 20 s, so clients repeat it."""


class ActivityCommand(WorkflowCommand, frozen=True, kw_only=True):
    """A worker's report on one delivery; ``run_id`` is always set."""

    activity_id: int
    attempt: int
    dispatch: int
    worker: str
    started_time_ms: int = 0


class CompleteActivity(ActivityCommand, frozen=True, kw_only=True):
    """The attempt returned."""

    result: Payload | None = None


class FailActivity(ActivityCommand, frozen=True, kw_only=True):
    """The attempt raised."""

    failure: Failure


class ReportActivityCanceled(ActivityCommand, frozen=True, kw_only=True):
    """The attempt ended because its cancellation was requested."""

    details: Payloads = ()


class ReturnActivity(ActivityCommand, frozen=True, kw_only=True):
    """The worker did not start the delivery (no slot, too old, shutting down): dispatch it again."""

    reason: str = ""


class WorkerLost(CommandBase, frozen=True, kw_only=True):
    """A worker incarnation is gone: all its attempts that are open on this partition have failed.

    Appended by the owner of ``partition`` to that partition; never forwarded.
    """

    worker: str
    partition: int


Command = (
    StartWorkflow
    | SignalWorkflow
    | QueryWorkflow
    | CancelWorkflow
    | TerminateWorkflow
    | AwaitResult
    | CompleteActivity
    | FailActivity
    | ReportActivityCanceled
    | ReturnActivity
    | WorkerLost
)


class Rejection(Value, frozen=True, kw_only=True):
    """A refused command: answered and counted, never an exception and never in history.

    ``reason`` is a stable code: the ``reason`` of the error class in ``orchestrator.errors`` that a
    client raises for it.
    """

    reason: str
    message: str
    run_id: str = ""
