"""What each role of the engine counts and measures, for Prometheus.

A registry belongs to one process's role, so that two engines in one process do not add up. Times are in
seconds, as the names say. No id is ever a label: each would be a time series of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from orchestrator.telemetry.versions import version

PREFIX: Final = "orchestrator"

WAITS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Buckets of what the engine itself takes: milliseconds when all is well."""

DURATIONS_S: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0, 604_800.0)
"""Buckets of what users' code takes: milliseconds for an activity, a week for a workflow that waits."""

ATTEMPTS: Final = (1, 2, 3, 5, 10, 30, 100)
"""Buckets of attempts. One is the rule; beyond a hundred, somebody should look."""


def new_registry(role: str) -> CollectorRegistry:
    """A registry that tells of the process, the version and the role: ``coordinator``, ``worker``…"""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    info = Info(PREFIX, "What runs here.", registry=registry)
    info.info({"version": version(), "role": role})
    return registry


def exposition(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """All that a registry holds, as text, and its content type.

    Args:
        registry: what is told.
        accept: the header of that name; Prometheus asks for OpenMetrics by it.
    """
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Maker:
    """Makes the instruments of one registry; names get our prefix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", about, labels, registry=self._registry)

    def gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", about, labels, registry=self._registry)

    def histogram(self, name: str, about: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", about, labels, buckets=buckets, registry=self._registry)


class CoordinatorMetrics:
    """What a coordinator measures. Workflows are counted where their turns are committed, so once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything."""
        make = _Maker(registry)
        self._make_workflows(make)
        self._make_activities(make)
        self._make_log(make)

    def _make_workflows(self, make: _Maker) -> None:
        about = "From the append of a start command until it is decided."
        self.start_latency = make.histogram("workflow_start_latency_seconds", about, buckets=WAITS_S)
        self.started = make.counter("workflows_started", "Runs that were started.", "workflow_type")
        about = "Runs that were closed, by status: Completed, Failed, Canceled, Terminated, TimedOut."
        self.closed = make.counter("workflows_closed", about, "workflow_type", "status")
        about = "From the start of a run to its close."
        self.duration = make.histogram(
            "workflow_duration_seconds", about, "workflow_type", buckets=DURATIONS_S
        )
        self.blocked = make.gauge("blocked_runs", "Runs whose code cannot go on until it is mended.")
        about = "From the time of a deadline (a timer, a timeout, a retry) until it is decided."
        self.timer_lateness = make.histogram("timer_lateness_seconds", about, buckets=WAITS_S)

    def _make_activities(self, make: _Maker) -> None:
        about = "Activities that were closed, by outcome: completed, failed, timed-out, canceled."
        self.activities_closed = make.counter("activities_closed", about, "outcome")
        about = "How many attempts an activity took until it was closed."
        self.attempts = make.histogram("activity_attempts", about, buckets=ATTEMPTS)
        about = "Attempts that failed and are repeated."
        self.attempts_failed = make.counter("activity_attempts_failed", about)
        self.backlog = make.gauge("queue_backlog", "Activities that wait for a worker.", "task_queue")
        about = "How long the oldest of them has waited."
        self.oldest = make.gauge("queue_oldest_seconds", about, "task_queue")

    def _make_log(self, make: _Maker) -> None:
        self.commands = make.counter("commands", "Commands that were read from the log.", "command")
        about = "Commands that were read and are not decided yet."
        self.waiting = make.gauge("commands_waiting", about)
        about = "The age of the oldest command that was read and is not decided yet."
        self.lag = make.gauge("command_lag_seconds", about)
        about = "From the decision of a turn until it is read back from history, and so committed."
        self.turn_commit = make.histogram("turn_commit_seconds", about, buckets=WAITS_S)
        self.partitions = make.gauge("partitions", "Partitions that are owned.")
        about = "Claims of partitions that were read back: starts and takeovers."
        self.claims = make.counter("claims", about)
        about = "Claims given up for something unexpected; what was decided under them is decided again."
        self.claims_lost = make.counter("claims_lost", about)
        about = "Records of history that do not count: the late ones of former owners."
        self.voids = make.counter("void_records", about)
        self.dead_letters = make.counter("dead_letters", "Records that were set aside, by topic.", "topic")


class WorkerMetrics:
    """What a worker measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything."""
        make = _Maker(registry)
        self.slots = make.gauge("worker_slots", "Attempts that may run at a time.")
        self.running = make.gauge("worker_running", "Attempts that run now.")
        about = "How long attempts ran, by what they reported: completed, failed, canceled, dropped."
        self.duration = make.histogram(
            "activity_duration_seconds", about, "activity_type", "outcome", buckets=DURATIONS_S
        )
