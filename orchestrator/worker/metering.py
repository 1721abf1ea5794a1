"""Attempts become numbers: the meter of a worker that somebody watches."""

from __future__ import annotations

from orchestrator.protocol.commands import CompleteActivity, FailActivity, ReportActivityCanceled
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.telemetry.metrics import WorkerMetrics
from orchestrator.worker.reports import Report

DROPPED = "dropped"
"""What became of an attempt that nobody waits for any more."""

OUTCOMES: dict[type[Report | None], str] = {
    CompleteActivity: "completed",
    FailActivity: "failed",
    ReportActivityCanceled: "canceled",
}


class MetricsMeter:
    """Implements :class:`orchestrator.worker.attempts.Meter`."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        """Tell ``metrics``."""
        self.metrics = metrics

    def opened(self, slots: int) -> None:
        """The worker begins; so many attempts may run at a time."""
        self.metrics.slots.set(slots)

    def began(self, task: ActivityTask) -> None:
        """An attempt runs."""
        self.metrics.running.inc()

    def ended(self, task: ActivityTask, report: Report | None, took_s: float) -> None:
        """An attempt has ended; ``report`` is None if nobody waits for one any more."""
        self.metrics.running.dec()
        outcome = OUTCOMES.get(type(report), DROPPED)
        self.metrics.duration.labels(task.activity_type, outcome).observe(took_s)
