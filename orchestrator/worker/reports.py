"""The commands in which a worker reports on a delivery: exactly one per delivery.

Pure: what became of a delivery in, the command out. All reports on a delivery share one request id, so
however often one is sent, and whichever, it counts once.
"""

from __future__ import annotations

from typing import Any

from orchestrator.protocol.commands import (
    CompleteActivity,
    FailActivity,
    ReportActivityCanceled,
    ReturnActivity,
)
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.protocol.values import Failure, FailureKind, Payload

Report = CompleteActivity | FailActivity | ReportActivityCanceled | ReturnActivity


class Reports:
    """Makes the reports of one worker."""

    def __init__(self, identity: str) -> None:
        self._identity = identity

    def completed(self, task: ActivityTask, started_time_ms: int, result: Payload) -> CompleteActivity:
        """The attempt returned."""
        return CompleteActivity(**self._about(task, started_time_ms), result=result)

    def failed(self, task: ActivityTask, started_time_ms: int, failure: Failure) -> FailActivity:
        """The attempt raised."""
        return FailActivity(**self._about(task, started_time_ms), failure=failure)

    def canceled(self, task: ActivityTask, started_time_ms: int) -> ReportActivityCanceled:
        """The attempt ended because its cancellation was requested, or was cancelled before it began."""
        return ReportActivityCanceled(**self._about(task, started_time_ms))

    def returned(self, task: ActivityTask, reason: str) -> ReturnActivity:
        """The delivery was not started: dispatch the attempt again."""
        return ReturnActivity(**self._about(task, 0), reason=reason)

    def _about(self, task: ActivityTask, started_time_ms: int) -> dict[str, Any]:
        return {
            "request_id": f"{task.run_id}/{task.activity_id}/{task.attempt}/{task.dispatch}",
            "identity": self._identity,
            "workflow_id": task.workflow_id,
            "run_id": task.run_id,
            "activity_id": task.activity_id,
            "attempt": task.attempt,
            "dispatch": task.dispatch,
            "worker": task.worker,
            "started_time_ms": started_time_ms,
        }


def stopped_failure(task: ActivityTask) -> Failure:
    """The failure of an attempt that was running when its worker shut down. It is retried without delay."""
    return Failure(
        kind=FailureKind.WORKER_LOST,
        message=f"the worker was shut down before activity {task.activity_type!r} had finished",
        next_retry_delay_ms=0,
    )


def refused_report(report: Report, task: ActivityTask, reason: str) -> Failure:
    """The failure in place of a report that the log will never take."""
    return Failure(
        kind=FailureKind.APPLICATION,
        type="RecordRefused",
        message=f"the log refused the {type(report).__name__} of activity {task.activity_type!r}: {reason}",
        non_retryable=True,
    )
