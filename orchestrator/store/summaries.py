"""What lists show of a run, taken from its state after a turn. No I/O.

It must be cheap: it is taken with every turn where indexes are kept, so it looks at what the turn touched,
and never at all that is open.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import msgspec

from orchestrator.engine import execution
from orchestrator.engine.state import ActivityPhase, ActivityState, Changes, RunState
from orchestrator.protocol.values import Failure, WorkflowStatus
from orchestrator.store.fingerprints import Alike, alike

MAX_ERROR_CHARS = 500
"""Of a failure's message in a list; the whole stands in the run's description."""

MAX_ACTIVITIES_EXAMINED = 100
"""Of those open, to find the one that was tried most often: a fan-out of thousands costs no more per turn."""


class Summary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run in a list. ``time_ms`` is that of its last turn, ``close_time_ms`` 0 of an open run.

    The fields that :class:`orchestrator.protocol.views.RunRow` has too mean the same there.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    status: WorkflowStatus
    start_time_ms: int
    time_ms: int
    close_time_ms: int = 0
    history_events: int = 0
    activity_type: str = ""
    attempt: int = 0
    last_failure: str = ""
    failure_group: str = ""
    tags: tuple[str, ...] = ()


class Pending(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An open activity that has no worker, or has failed before. Its attempt was or will be due at
    ``retry_time_ms``, 0 for the first.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    activity_id: int
    activity_type: str
    task_queue: str
    phase: ActivityPhase
    attempt: int
    maximum_attempts: int
    scheduled_time_ms: int
    retry_time_ms: int = 0
    worker: str = ""
    last_failure: str = ""


class Glance(NamedTuple):
    """What there is to see of a run after a turn.

    ``failure`` is what ``summary.failure_group`` names. ``touched`` are activities whose place may have
    changed, with None for those that are closed or well.
    """

    summary: Summary
    first: bool
    failure: Alike | None
    touched: dict[int, Pending | None]


def glance_of(state: RunState, changes: Changes) -> Glance:
    """A run as it stands after a turn that made ``changes``."""
    summary, failure = summarize(state)
    ids = [activity_id for _, activity_id in changes.taken]
    ids += [activity_id for _, activity_id in changes.freed]
    ids += changes.waiting
    ids += changes.gone
    return Glance(summary, state.turn == 1, failure, {one: _pending(state, one) for one in ids})


def summarize(state: RunState) -> tuple[Summary, Alike | None]:
    """A run's summary, and what its failure group has in common, if it is in one."""
    worst = _worst(state)
    failure, counts = _failure_of(state, worst)
    group = None
    if failure is not None and counts:
        group = alike(failure, state.workflow_type, worst.scheduled.activity_type if worst else "")
    return Summary(
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        workflow_type=state.workflow_type,
        status=state.status,
        start_time_ms=state.start_time_ms,
        time_ms=state.time_ms,
        close_time_ms=state.close_time_ms,
        history_events=state.next_event_id - 1,
        activity_type=worst.scheduled.activity_type if worst is not None else "",
        attempt=worst.attempt if worst is not None else 0,
        last_failure=_message(failure),
        failure_group=group.fingerprint if group is not None else "",
        tags=getattr(state.close, "tags", ()),
    ), group


def _worst(state: RunState) -> ActivityState | None:
    """The open activity that was tried most often."""
    if len(state.activities) <= 1:  # as most runs
        return next(iter(state.activities.values()), None)
    examined = islice(state.activities.values(), MAX_ACTIVITIES_EXAMINED)
    return max(examined, key=lambda found: found.attempt)


def _failure_of(state: RunState, worst: ActivityState | None) -> tuple[Failure | None, bool]:
    """What went wrong last, and whether somebody should look into it: who cancels knows why."""
    if state.close is not None:
        return execution.close_failure(state.close), state.status in _FAILED
    if state.blocked is not None:
        return state.blocked, True
    return worst.last_failure if worst is not None else None, True


_FAILED = (WorkflowStatus.FAILED, WorkflowStatus.TIMED_OUT)


def _message(failure: Failure | None) -> str:
    """What was at the bottom of it: "sanctions hit" says more than that an activity failed."""
    if failure is None:
        return ""
    while failure.cause is not None:
        failure = failure.cause
    return failure.message[:MAX_ERROR_CHARS]


def _pending(state: RunState, activity_id: int) -> Pending | None:
    found = state.activities.get(activity_id)
    if found is None or (found.phase is ActivityPhase.DISPATCHED and found.attempt == 1):
        return None
    return Pending(
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        workflow_type=state.workflow_type,
        activity_id=activity_id,
        activity_type=found.scheduled.activity_type,
        task_queue=found.scheduled.task_queue,
        phase=found.phase,
        attempt=found.attempt,
        maximum_attempts=found.scheduled.retry_policy.maximum_attempts,
        scheduled_time_ms=found.scheduled_time_ms,
        retry_time_ms=found.retry_time_ms,
        worker=found.worker if found.phase is ActivityPhase.DISPATCHED else "",
        last_failure=_message(found.last_failure),
    )
