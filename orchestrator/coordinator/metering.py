"""Turns become numbers: the meter of a coordinator that somebody watches.

Runs and activities are counted when their turns are read back, so whatever is decided twice counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.coordinator.drafts import Draft, Input
from orchestrator.coordinator.partition import Entry, Partition
from orchestrator.engine.state import Deadline
from orchestrator.log.topics import COMMANDS, COMMANDS_TX, WORKERS
from orchestrator.protocol import events as e
from orchestrator.protocol.commands import Command, StartWorkflow
from orchestrator.protocol.tasks import QueueBacklog
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.telemetry.metrics import CoordinatorMetrics

SET_ASIDE_FROM = (COMMANDS, COMMANDS_TX, WORKERS)
"""Topics whose records a coordinator reads, and may set aside."""


class MetricsMeter:
    """Implements :class:`orchestrator.coordinator.meter.Meter`.

    Counters that alerts look at begin at 0 before anything happens: Prometheus sees no increase in one that
    appears as 1, so the first dead letter or failed run of a process would go unnoticed.

    Args:
        metrics: what is told.
        workflow_types: those whose closes are counted from 0 on; of others, from the first start on.
    """

    def __init__(self, metrics: CoordinatorMetrics, workflow_types: Iterable[str] = ()) -> None:
        self.metrics = metrics
        for topic in SET_ASIDE_FROM:
            metrics.dead_letters.labels(topic)
        self._types: set[str] = set()
        """Workflow types whose counters are there."""
        for workflow_type in workflow_types:
            self._expect(workflow_type)
        self._blocked: dict[int, set[str]] = {}
        """Run ids by partition, for each one that is owned."""
        self._queues: set[str] = set()
        """Those that had a backlog at the last beat."""

    def took(self, command: Command, waited_ms: int) -> None:
        """A command is taken up, so long after it was appended."""
        self.metrics.commands.labels(type(command).__name__).inc()
        if isinstance(command, StartWorkflow):
            self.metrics.start_latency.observe(_seconds(waited_ms))

    def came(self, inputs: Mapping[str, Sequence[Input]], now_ms: int) -> None:
        """The engine's own inputs, by workflow id: deadlines and the like."""
        for given in (given for found in inputs.values() for given in found):
            if isinstance(given.item, Deadline):
                self.metrics.timer_lateness.observe(_seconds(now_ms - given.item.at_ms))

    def committed(self, partition: int, entries: Iterable[tuple[Entry, int]], now_ms: int) -> None:
        """Turns were read back, with their offsets."""
        for entry, _ in entries:
            draft = entry.draft
            if draft is None:
                continue
            self.metrics.turn_commit.observe(_seconds(now_ms - draft.time_ms))
            for event in draft.events:
                note = _NOTES.get(type(event))
                if note is not None:
                    note(self, partition, draft, event)

    def owned(self, partition: int, blocked: Iterable[str]) -> None:
        """A claim came back; the ids of the partition's runs that are blocked."""
        self.metrics.claims.inc()
        self._blocked[partition] = set(blocked)
        self.metrics.partitions.set(len(self._blocked))

    def gave_up(self, partition: int, *, incident: bool) -> None:
        """A partition is another's, or something unexpected has happened to its claim."""
        if incident:
            self.metrics.claims_lost.inc()
        self._blocked.pop(partition, None)
        self.metrics.partitions.set(len(self._blocked))

    def found_void(self) -> None:
        """A record of history does not count."""
        self.metrics.voids.inc()

    def set_aside(self, topic: str) -> None:
        """A record of a topic is of no use."""
        self.metrics.dead_letters.labels(topic).inc()

    def beat(self, partitions: Collection[Partition], backlogs: Iterable[QueueBacklog], now_ms: int) -> None:
        """Once per second: how things are."""
        oldest_ms = [found.commands.waiting[0].time_ms for found in partitions if found.commands.waiting]
        self.metrics.waiting.set(sum(len(found.commands.waiting) for found in partitions))
        self.metrics.lag.set(_seconds(now_ms - min(oldest_ms)) if oldest_ms else 0.0)
        self.metrics.blocked.set(sum(map(len, self._blocked.values())))
        found = {backlog.task_queue: backlog for backlog in backlogs}
        for queue in self._queues - found.keys():
            self.metrics.backlog.labels(queue).set(0)
            self.metrics.oldest.labels(queue).set(0)
        for queue, backlog in found.items():
            self.metrics.backlog.labels(queue).set(backlog.waiting)
            self.metrics.oldest.labels(queue).set(_seconds(now_ms - backlog.oldest_time_ms))
        self._queues = set(found)

    def _expect(self, workflow_type: str) -> None:
        """Runs of this type may close in any way."""
        if workflow_type not in self._types:
            self._types.add(workflow_type)
            for status in WorkflowStatus:
                if not status.is_open:
                    self.metrics.closed.labels(workflow_type, status.value)

    def _started(self, partition: int, draft: Draft, event: e.WorkflowStarted) -> None:
        self._expect(event.workflow_type)
        self.metrics.started.labels(event.workflow_type).inc()

    def _closed(self, partition: int, draft: Draft, event: e.Event) -> None:
        state = draft.run.state
        self.metrics.closed.labels(state.workflow_type, state.status.value).inc()
        self.metrics.duration.labels(state.workflow_type).observe(
            _seconds(draft.time_ms - state.start_time_ms)
        )
        self._unblocked(partition, draft, event)

    def _attempt_failed(self, partition: int, draft: Draft, event: e.Event) -> None:
        self.metrics.attempts_failed.inc()

    def _activity_closed(self, partition: int, draft: Draft, event: Any) -> None:
        self.metrics.activities_closed.labels(_OUTCOMES[type(event)]).inc()
        self.metrics.attempts.observe(event.attempt)

    def _blocked_now(self, partition: int, draft: Draft, event: e.Event) -> None:
        self._blocked.setdefault(partition, set()).add(draft.run.state.run_id)

    def _unblocked(self, partition: int, draft: Draft, event: e.Event) -> None:
        self._blocked.get(partition, set()).discard(draft.run.state.run_id)


_OUTCOMES: dict[type[e.Event], str] = {
    e.ActivityCompleted: "completed",
    e.ActivityFailed: "failed",
    e.ActivityTimedOut: "timed-out",
    e.ActivityCanceled: "canceled",
}

_NOTES: dict[type[e.Event], Callable[[MetricsMeter, int, Draft, Any], None]] = {
    e.WorkflowStarted: MetricsMeter._started,
    e.WorkflowCompleted: MetricsMeter._closed,
    e.WorkflowFailed: MetricsMeter._closed,
    e.WorkflowCanceled: MetricsMeter._closed,
    e.WorkflowTerminated: MetricsMeter._closed,
    e.WorkflowTimedOut: MetricsMeter._closed,
    e.ActivityAttemptFailed: MetricsMeter._attempt_failed,
    **dict.fromkeys(_OUTCOMES, MetricsMeter._activity_closed),
    e.WorkflowBlocked: MetricsMeter._blocked_now,
    e.WorkflowUnblocked: MetricsMeter._unblocked,
}


def _seconds(ms: int) -> float:
    """Clocks of two machines may differ by a little; no time is negative."""
    return max(ms, 0) / 1_000
