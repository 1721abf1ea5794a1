"""State of one run: the fold of its turns. Only ``evolve`` writes it.

It mutates in place: frozen copies would make a fan-out of 10,000 activities quadratic. It holds what
is open; what is closed lives in history alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from orchestrator.protocol.events import ActivityScheduled, Event
from orchestrator.protocol.values import Failure, WorkflowStatus

MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999: what is due later never is, and fits into every row and record all the same."""


def time_after(time_ms: int, delay_ms: int) -> int:
    """The time of a deadline: never before ``time_ms``, never after ``MAX_TIME_MS``."""
    return min(time_ms + max(delay_ms, 0), MAX_TIME_MS)


class DeadlineKind(StrEnum):
    """What a deadline is about. Its owner is the run, a timer or an activity of it."""

    RUN_TIMEOUT = "run-timeout"
    TIMER = "timer"
    RETRY = "retry"
    SCHEDULE_TO_START = "schedule-to-start"
    SCHEDULE_TO_CLOSE = "schedule-to-close"
    START_TO_CLOSE = "start-to-close"


class Deadline(NamedTuple):
    """A point in engine time at which a run must be looked at. ``id`` is 0 for the run itself."""

    at_ms: int
    kind: DeadlineKind
    id: int


class ActivityPhase(StrEnum):
    """Where an open activity is. ``BACKOFF`` ends at ``retry_time_ms``, without an event."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"
    BACKOFF = "backoff"


def waits_since_ms(
    phase: ActivityPhase, scheduled_time_ms: int, retry_time_ms: int, now_ms: int
) -> int | None:
    """Since when an open activity could begin and has no worker; None if it has one, or is not due yet.

    ``retry_time_ms`` is when its open attempt was due, 0 for the first.
    """
    if phase is ActivityPhase.DISPATCHED or (phase is ActivityPhase.BACKOFF and retry_time_ms > now_ms):
        return None
    return retry_time_ms or scheduled_time_ms


class ActivityState(msgspec.Struct, array_like=True, gc=False):
    """An open activity. ``attempt`` is the open one or, in backoff, the next."""

    activity_id: int
    scheduled_event_id: int
    scheduled_time_ms: int
    scheduled: ActivityScheduled
    phase: ActivityPhase
    attempt: int = 1
    dispatch: int = 0
    worker: str = ""
    inbox: int = 0
    dispatched_time_ms: int = 0
    retry_time_ms: int = 0
    cancel_requested: bool = False
    last_failure: Failure | None = None


class RunState(msgspec.Struct, array_like=True, gc=False):
    """An execution of a workflow. ``turn`` and ``next_event_id`` say how far the fold has come.

    ``deferred_from`` is the first turn with facts that the code has yet to be told, 0 if there is none.
    ``close`` is the event that closed the run. ``headers`` stand in each of its turns.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    status: WorkflowStatus
    start_time_ms: int
    time_ms: int
    turn: int = 0
    next_event_id: int = 1
    run_deadline_ms: int = 0
    cancel_requested: bool = False
    deferred_from: int = 0
    blocked: Failure | None = None
    close_time_ms: int = 0
    close: Event | None = None
    activities: dict[int, ActivityState] = {}
    timers: dict[int, int] = {}
    headers: dict[str, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether the run can still change."""
        return self.close is None


class Changes(msgspec.Struct, gc=False):
    """What an evolution changed that others keep account of: deadlines, slots and waiting activities.

    ``waiting`` are activities that need a worker, ``gone`` those that were closed while they had none;
    ``taken`` and ``freed`` are (worker, activity) pairs.
    """

    deadlines_set: list[Deadline] = []
    deadlines_cleared: list[Deadline] = []
    waiting: list[int] = []
    gone: list[int] = []
    taken: list[tuple[str, int]] = []
    freed: list[tuple[str, int]] = []
