"""What is known after the demo, and from whom: the dead engine's log, the living engine, the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.contrib.world import Effect, Execution
from orchestrator.protocol.events import (
    CLOSES,
    ActivityAttemptFailed,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityTimedOut,
    Event,
    WorkflowCanceled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowTerminated,
    WorkflowTimedOut,
)
from orchestrator.protocol.values import Failure, WorkflowStatus
from orchestrator.protocol.views import History

_STATUS: dict[type[Event], WorkflowStatus] = {
    WorkflowCompleted: WorkflowStatus.COMPLETED,
    WorkflowFailed: WorkflowStatus.FAILED,
    WorkflowCanceled: WorkflowStatus.CANCELED,
    WorkflowTerminated: WorkflowStatus.TERMINATED,
    WorkflowTimedOut: WorkflowStatus.TIMED_OUT,
}


@dataclass(frozen=True)
class Evidence:
    """Everything that the checks judge.

    Attributes:
        killed_ms: when the kill was ordered (Unix milliseconds).
        before: by workflow id, what the log of the killed engine held, read after the kill.
        after: by workflow id, what the engine that went on says at the end.
        ran_before: how many of the executions the killed engine began.
        executions: the ledger of the outside world.
        effects: what changed in the outside world.
    """

    killed_ms: int
    before: dict[str, History]
    after: dict[str, History]
    ran_before: int
    executions: list[Execution]
    effects: list[Effect]


@dataclass(frozen=True)
class Summary:
    """One run in a line. ``steps``: completed activities; ``time_s`` from start to close, if it is closed."""

    status: WorkflowStatus
    steps: int
    attempts: int
    error: str
    tags: tuple[str, ...]
    time_s: float | None


def events_of(history: History) -> Iterator[Event]:
    """All events of a run, in order."""
    return (event for turn in history.turns for event in turn.events)


def activity_types(history: History) -> dict[int, str]:
    """The names of a run's activities by their number."""
    return {
        event.activity_id: event.activity_type
        for event in events_of(history)
        if isinstance(event, ActivityScheduled)
    }


def completed(history: History) -> list[ActivityCompleted]:
    """The completions of a run's activities, in order."""
    return [event for event in events_of(history) if isinstance(event, ActivityCompleted)]


def failed_attempts(history: History) -> list[tuple[str, str]]:
    """The attempts of a run that failed and were followed by another: activity, and words of the failure."""
    names = activity_types(history)
    return [
        (names.get(event.activity_id, "?"), root_message(event.failure))
        for event in events_of(history)
        if isinstance(event, ActivityAttemptFailed)
    ]


def failures(history: History) -> list[str]:
    """The words of each failure of an activity or an attempt."""
    kinds = ActivityAttemptFailed | ActivityFailed | ActivityTimedOut
    return [root_message(event.failure) for event in events_of(history) if isinstance(event, kinds)]


def is_closed(history: History) -> bool:
    """Whether the run is over."""
    return isinstance(history.turns[-1].events[-1], CLOSES)


def summarize(history: History) -> Summary:
    """What became of a run."""
    events = list(events_of(history))
    close = events[-1]
    status = _STATUS.get(type(close), WorkflowStatus.RUNNING)
    attempts = {
        event.activity_id: event.attempt
        for event in events
        if isinstance(event, ActivityCompleted | ActivityFailed | ActivityTimedOut | ActivityAttemptFailed)
    }
    failure: Failure | None = getattr(close, "failure", None)
    time_ms = history.turns[-1].time_ms - history.turns[0].time_ms
    return Summary(
        status=status,
        steps=len(completed(history)),
        attempts=sum(attempts.values()),
        error=root_message(failure) if failure is not None else "",
        tags=getattr(close, "tags", ()),
        time_s=None if status.is_open else time_ms / 1_000,
    )


def root_message(failure: Failure) -> str:
    """The words of the failure that all the others come from."""
    while failure.cause is not None:
        failure = failure.cause
    return failure.message
