"""The life of a timer: started, then fired or cancelled."""

from __future__ import annotations

from orchestrator.engine.state import Changes, Deadline, DeadlineKind, RunState
from orchestrator.protocol.events import Event, TimerCanceled, TimerFired, TimerStarted

TRANSITIONS: dict[tuple[bool, type[Event]], bool] = {
    (False, TimerStarted): True,
    (True, TimerFired): False,
    (True, TimerCanceled): False,
}
"""(is open, event) → is open."""


def decide_deadline(state: RunState, deadline: Deadline, now_ms: int) -> tuple[Event, ...]:
    """A timer's time has come; one that was cancelled meanwhile does not fire."""
    if state.timers.get(deadline.id) != deadline.at_ms:
        return ()
    return (TimerFired(timer_id=deadline.id),)


def evolve_started(
    state: RunState, event: TimerStarted, event_id: int, time_ms: int, changes: Changes
) -> None:
    """The timer is open until it fires or is cancelled."""
    _check(state, event)
    state.timers[event.timer_id] = event.fire_time_ms
    changes.deadlines_set.append(Deadline(event.fire_time_ms, DeadlineKind.TIMER, event.timer_id))


def evolve_ended(
    state: RunState, event: TimerFired | TimerCanceled, event_id: int, time_ms: int, changes: Changes
) -> None:
    """The timer leaves the state."""
    _check(state, event)
    at_ms = state.timers.pop(event.timer_id)
    changes.deadlines_cleared.append(Deadline(at_ms, DeadlineKind.TIMER, event.timer_id))


def _check(state: RunState, event: TimerStarted | TimerFired | TimerCanceled) -> None:
    is_open = event.timer_id in state.timers
    if (is_open, type(event)) not in TRANSITIONS:
        words = "open already" if is_open else "not open"
        raise ValueError(f"timer {event.timer_id} of run {state.run_id} is {words}: {event!r} is impossible")
