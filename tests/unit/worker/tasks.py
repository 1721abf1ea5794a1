"""Tasks for tests."""

from typing import Any

from orchestrator.codec.payloads import DEFAULT
from orchestrator.protocol.tasks import ActivityTask, CancelTask

NOW_MS = 1_000_000


def activity_task(*args: Any, **fields: Any) -> ActivityTask:
    """A delivery; what is not given has plain values."""
    values: dict[str, Any] = {
        "worker": "w1",
        "workflow_id": "order-1",
        "run_id": "run-1",
        "workflow_type": "Order",
        "activity_id": 1,
        "activity_type": "echo",
        "task_queue": "default",
        "attempt": 1,
        "dispatch": 1,
        "input": DEFAULT.to_payloads(args),
        "scheduled_time_ms": NOW_MS,
        "dispatched_time_ms": NOW_MS,
    }
    return ActivityTask(**(values | fields))


def cancel_task(task: ActivityTask) -> CancelTask:
    """The cancellation of a delivery."""
    return CancelTask(
        worker=task.worker,
        run_id=task.run_id,
        activity_id=task.activity_id,
        attempt=task.attempt,
        dispatch=task.dispatch,
    )
