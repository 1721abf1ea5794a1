"""A run's turns as bars over time: what ran when, what was tried again, what is still open. No I/O.

A bar is the run itself, an activity with its attempts, or a timer. What only happens (a signal, a published
event) is a mark. Times in which no attempt is with a worker and nothing happens are idle; ``picture`` cuts
them out of the drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from orchestrator.protocol import events as e
from orchestrator.protocol.records import Turn
from orchestrator.protocol.values import Failure, FailureKind

MAX_ATTEMPTS_KEPT = 40
"""Of one activity: the first one and the newest. One that is retried for ever has thousands, and a drawing
has no room for more."""

MAX_MARKS_KEPT = 50_000
"""Of one run: a tenth of a megabyte of times."""

MAX_GAPS_KEPT = 64
"""The longest idle times of a run; a drawing cuts fewer than that."""


class Kind(StrEnum):
    """What a bar or mark is about."""

    RUN = "run"
    ACTIVITY = "activity"
    TIMER = "timer"
    SIGNAL = "signal"
    EVENT = "event"


class Outcome(StrEnum):
    """How a bar or an attempt ended. ``ENDED``: the run closed before it did. ``BLOCKED``: of code."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELED = "canceled"
    LOST = "worker lost"
    RETURNED = "returned"
    BLOCKED = "blocked"
    ENDED = "ended with the run"


BAD = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST, Outcome.BLOCKED})
"""The outcomes that somebody may look for."""


class Attempt(msgspec.Struct, gc=False):
    """A time that a worker had an activity, or for which a run was blocked; ``end_ms`` None is now."""

    number: int
    start_ms: int
    end_ms: int | None = None
    outcome: Outcome = Outcome.OPEN
    detail: str = ""


class Bar(msgspec.Struct, gc=False):
    """Something that took time. ``tries`` counts all attempts, ``attempts`` has those that are kept.

    ``end_ms`` None is now. ``due_ms`` is when an open timer fires.
    """

    kind: Kind
    name: str
    id: int
    start_ms: int
    end_ms: int | None = None
    outcome: Outcome = Outcome.OPEN
    attempts: list[Attempt] = []
    tries: int = 0
    due_ms: int = 0

    @property
    def troubled(self) -> bool:
        """Whether it, or one of its attempts, went wrong."""
        return self.outcome in BAD or any(attempt.outcome in BAD for attempt in self.attempts)


class Gap(NamedTuple):
    """A time in which nothing ran."""

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        """How long that was."""
        return self.end_ms - self.start_ms


class Timeline:
    """Folds the turns of one run, in order, from its first one on. Of one thread.

    ``turn`` and ``last_ms`` say how far it has come; ``start_ms`` is when the run began. ``activities`` and
    ``timers`` are bars by their ids.
    """

    def __init__(self) -> None:
        self.turn = 0
        self.start_ms = self.last_ms = 0
        self.run = Bar(Kind.RUN, "", 0, 0)
        self.started = e.WorkflowStarted(workflow_type="")
        """The run's first event."""
        self.activities: dict[int, Bar] = {}
        self.timers: dict[int, Bar] = {}
        self.marks: dict[tuple[Kind, str], list[int]] = {}
        """When something happened, by what it is."""
        self._marks_kept = 0
        self._running = 0
        self._gaps: list[Gap] = []

    def extend(self, turns: Iterable[Turn]) -> None:
        """The next turns."""
        for turn in turns:
            self.add(turn)

    def add(self, turn: Turn) -> None:
        """The next turn. One that was added before changes nothing."""
        if turn.turn <= self.turn:
            return
        time_ms = max(turn.time_ms, self.last_ms)
        if not self.turn:
            self.start_ms = self.run.start_ms = time_ms
        elif not self._running:
            self._idle(time_ms)
        self.turn, self.last_ms = turn.turn, time_ms
        for event in turn.events:
            take = _TAKE.get(type(event))
            if take is not None:
                take(self, event, time_ms)

    @property
    def is_open(self) -> bool:
        """Whether the run is."""
        return self.run.end_ms is None

    def end_ms(self, now_ms: int) -> int:
        """Where the drawing ends: when the run closed, or now."""
        return self.run.end_ms if self.run.end_ms is not None else max(now_ms, self.last_ms)

    def gaps(self, now_ms: int) -> list[Gap]:
        """The longest idle times, longest first; the last one may last until now."""
        found = list(self._gaps)
        if self.is_open and not self._running and now_ms > self.last_ms:
            found.append(Gap(self.last_ms, now_ms))
        return sorted(found, key=lambda gap: -gap.length_ms)

    def _idle(self, until_ms: int) -> None:
        if until_ms > self.last_ms:
            self._gaps.append(Gap(self.last_ms, until_ms))
        if len(self._gaps) >= 2 * MAX_GAPS_KEPT:
            self._gaps.sort(key=lambda gap: -gap.length_ms)
            del self._gaps[MAX_GAPS_KEPT:]

    # ---------------------------------------------------------------------------------------- events

    def _on_started(self, event: e.WorkflowStarted, time_ms: int) -> None:
        self.run.name, self.started = event.workflow_type, event

    def _on_scheduled(self, event: e.ActivityScheduled, time_ms: int) -> None:
        bar = self.activities[event.activity_id] = Bar(
            Kind.ACTIVITY, event.activity_type, event.activity_id, time_ms
        )
        if event.worker:
            self._begin(bar, 1, time_ms)

    def _on_dispatched(self, event: e.ActivitiesDispatched, time_ms: int) -> None:
        for dispatch in event.dispatches:
            bar = self.activities.get(dispatch.activity_id)
            if bar is not None and bar.end_ms is None:
                self._begin(bar, dispatch.attempt, time_ms)

    def _on_attempt_failed(self, event: e.ActivityAttemptFailed, time_ms: int) -> None:
        bar = self.activities.get(event.activity_id)
        if bar is not None:
            self._finish(
                bar, time_ms, _OF_FAILURE.get(event.failure.kind, Outcome.FAILED), _why(event.failure)
            )

    def _on_returned(self, event: e.ActivityReturned, time_ms: int) -> None:
        bar = self.activities.get(event.activity_id)
        if bar is not None:
            self._finish(bar, time_ms, Outcome.RETURNED, event.reason)

    def _on_activity_closed(self, event: Any, time_ms: int) -> None:
        bar = self.activities.get(event.activity_id)
        if bar is not None:
            failure = getattr(event, "failure", None)
            self._close(bar, time_ms, _OF_ACTIVITY[type(event)], _why(failure) if failure is not None else "")

    def _on_timer(self, event: e.TimerStarted, time_ms: int) -> None:
        name = event.summary or f"timer {event.timer_id}"
        self.timers[event.timer_id] = Bar(
            Kind.TIMER, name, event.timer_id, time_ms, due_ms=event.fire_time_ms
        )

    def _on_timer_closed(self, event: e.TimerFired | e.TimerCanceled, time_ms: int) -> None:
        bar = self.timers.get(event.timer_id)
        if bar is not None:
            self._close(bar, time_ms, Outcome.DONE if isinstance(event, e.TimerFired) else Outcome.CANCELED)

    def _on_signal(self, event: e.WorkflowSignaled, time_ms: int) -> None:
        self._mark(Kind.SIGNAL, event.signal_name, time_ms)

    def _on_cancel(self, event: e.WorkflowCancelRequested, time_ms: int) -> None:
        self._mark(Kind.SIGNAL, "cancellation", time_ms)

    def _on_published(self, event: e.EventPublished, time_ms: int) -> None:
        self._mark(Kind.EVENT, event.topic, time_ms)

    def _on_blocked(self, event: e.WorkflowBlocked, time_ms: int) -> None:
        self._finish_blocked(time_ms)
        _keep(self.run, Attempt(0, time_ms, None, Outcome.BLOCKED, event.reason))

    def _on_unblocked(self, event: e.WorkflowUnblocked, time_ms: int) -> None:
        self._finish_blocked(time_ms)

    def _on_closed(self, event: Any, time_ms: int) -> None:
        for bar in (*self.activities.values(), *self.timers.values()):
            if bar.end_ms is None:
                self._close(bar, time_ms, Outcome.ENDED)
        self._finish_blocked(time_ms)
        self.run.end_ms, self.run.outcome = time_ms, _OF_RUN[type(event)]

    # ------------------------------------------------------------------------------------------ bars

    def _begin(self, bar: Bar, number: int, time_ms: int) -> None:
        bar.tries = max(bar.tries, number)
        _keep(bar, Attempt(number, time_ms))
        self._running += 1

    def _finish(self, bar: Bar, time_ms: int, outcome: Outcome, detail: str = "") -> None:
        attempt = bar.attempts[-1] if bar.attempts else None
        if attempt is not None and attempt.end_ms is None:
            attempt.end_ms, attempt.outcome, attempt.detail = time_ms, outcome, detail
            self._running -= 1

    def _close(self, bar: Bar, time_ms: int, outcome: Outcome, detail: str = "") -> None:
        self._finish(bar, time_ms, outcome, detail)
        bar.end_ms, bar.outcome = time_ms, outcome

    def _finish_blocked(self, time_ms: int) -> None:
        if self.run.attempts and self.run.attempts[-1].end_ms is None:
            self.run.attempts[-1].end_ms = time_ms

    def _mark(self, kind: Kind, name: str, time_ms: int) -> None:
        if self._marks_kept < MAX_MARKS_KEPT:
            self.marks.setdefault((kind, name), []).append(time_ms)
            self._marks_kept += 1


def _keep(bar: Bar, attempt: Attempt) -> None:
    bar.attempts.append(attempt)
    if len(bar.attempts) > MAX_ATTEMPTS_KEPT:
        del bar.attempts[1]


def _why(failure: Failure) -> str:
    """What was at the bottom of it."""
    while failure.cause is not None:
        failure = failure.cause
    return f"{failure.type}: {failure.message}" if failure.type else failure.message


_TAKE: Mapping[type[e.EventBase], Callable[[Timeline, Any, int], None]] = {
    e.WorkflowStarted: Timeline._on_started,
    e.ActivityScheduled: Timeline._on_scheduled,
    e.ActivitiesDispatched: Timeline._on_dispatched,
    e.ActivityAttemptFailed: Timeline._on_attempt_failed,
    e.ActivityReturned: Timeline._on_returned,
    e.ActivityCompleted: Timeline._on_activity_closed,
    e.ActivityFailed: Timeline._on_activity_closed,
    e.ActivityTimedOut: Timeline._on_activity_closed,
    e.ActivityCanceled: Timeline._on_activity_closed,
    e.TimerStarted: Timeline._on_timer,
    e.TimerFired: Timeline._on_timer_closed,
    e.TimerCanceled: Timeline._on_timer_closed,
    e.WorkflowSignaled: Timeline._on_signal,
    e.WorkflowCancelRequested: Timeline._on_cancel,
    e.EventPublished: Timeline._on_published,
    e.WorkflowBlocked: Timeline._on_blocked,
    e.WorkflowUnblocked: Timeline._on_unblocked,
    e.WorkflowCompleted: Timeline._on_closed,
    e.WorkflowFailed: Timeline._on_closed,
    e.WorkflowCanceled: Timeline._on_closed,
    e.WorkflowTerminated: Timeline._on_closed,
    e.WorkflowTimedOut: Timeline._on_closed,
}
"""What an event means for the drawing; others mean nothing to it."""

_OF_ACTIVITY: Mapping[type[e.EventBase], Outcome] = {
    e.ActivityCompleted: Outcome.DONE,
    e.ActivityFailed: Outcome.FAILED,
    e.ActivityTimedOut: Outcome.TIMED_OUT,
    e.ActivityCanceled: Outcome.CANCELED,
}

_OF_RUN: Mapping[type[e.EventBase], Outcome] = {
    e.WorkflowCompleted: Outcome.DONE,
    e.WorkflowFailed: Outcome.FAILED,
    e.WorkflowCanceled: Outcome.CANCELED,
    e.WorkflowTerminated: Outcome.CANCELED,
    e.WorkflowTimedOut: Outcome.TIMED_OUT,
}

_OF_FAILURE: Mapping[FailureKind, Outcome] = {
    FailureKind.TIMEOUT: Outcome.TIMED_OUT,
    FailureKind.CANCELED: Outcome.CANCELED,
    FailureKind.WORKER_LOST: Outcome.LOST,
}
