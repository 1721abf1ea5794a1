"""Events: what happened to a run. Past tense; the only truth; never changed.

Events live in turns (see ``records``); an event's id is its place in the run's history, from 1, and
its time is its turn's. Three kinds, by who made them:

- *facts* came from outside; the workflow's code is told of them, in order;
- *outcomes* are what the code did in answer: replay compares them;
- *notes* concern the engine alone: dispatches, failed attempts, blocks.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.protocol.values import (
    CancellationType,
    Failure,
    Payload,
    Payloads,
    RetryPolicy,
    RetryState,
    Value,
)


class EventBase(Value, tag=True, tag_field="event", frozen=True, kw_only=True):
    """What all events have in common: nothing but the tag that names their kind."""


class RunFlags(Value, frozen=True, kw_only=True):
    """How this run's code is executed; a run keeps the flags it was started with.

    Without them no fix of the loop is ever safe: replay must do as the first execution did.
    """

    loop: int = 1
    random: int = 1
    python: str = ""


class WorkflowStarted(EventBase, frozen=True, kw_only=True):
    """Fact. The first event of each run."""

    workflow_type: str
    input: Payloads = ()
    run_timeout_ms: int | None = None
    identity: str = ""
    flags: RunFlags = RunFlags()
    first_run_id: str = ""
    parent_workflow_id: str = ""
    parent_run_id: str = ""
    root_workflow_id: str = ""
    root_run_id: str = ""
    memo: dict[str, Payload] = {}
    search_attributes: dict[str, Payload] = {}
    summary: str = ""
    priority: int = 0
    fairness_key: str = ""
    code_version: str = ""
    conflict_policy: str = ""
    user_metadata: dict[str, str] = {}


class WorkflowSignaled(EventBase, frozen=True, kw_only=True):
    """Fact. A signal arrived."""

    signal_name: str
    input: Payloads = ()
    identity: str = ""


class WorkflowCancelRequested(EventBase, frozen=True, kw_only=True):
    """Fact. Somebody asked the run to cancel itself."""

    reason: str = ""
    identity: str = ""


class ActivityCompleted(EventBase, frozen=True, kw_only=True):
    """Fact. An attempt returned; the activity is closed."""

    activity_id: int
    result: Payload | None = None
    attempt: int = 1
    worker: str = ""
    started_time_ms: int = 0


class ActivityFailed(EventBase, frozen=True, kw_only=True):
    """Fact. The last attempt failed and there will be no other; the activity is closed."""

    activity_id: int
    failure: Failure
    retry_state: RetryState
    attempt: int = 1
    worker: str = ""
    started_time_ms: int = 0


class ActivityTimedOut(EventBase, frozen=True, kw_only=True):
    """Fact. A timeout closed the activity; ``failure.cause`` is the last attempt's failure, if any."""

    activity_id: int
    failure: Failure
    retry_state: RetryState
    attempt: int = 1


class ActivityCanceled(EventBase, frozen=True, kw_only=True):
    """Fact. The activity is closed because its cancellation was requested."""

    activity_id: int
    details: Payloads = ()
    attempt: int = 1


class TimerFired(EventBase, frozen=True, kw_only=True):
    """Fact. A timer's time has come."""

    timer_id: int


class ActivityScheduled(EventBase, frozen=True, kw_only=True):
    """Outcome. The code asked for an activity. With ``worker`` set, attempt 1 went to it at once."""

    activity_id: int
    activity_type: str
    task_queue: str
    input: Payloads = ()
    schedule_to_close_ms: int | None = None
    schedule_to_start_ms: int | None = None
    start_to_close_ms: int | None = None
    heartbeat_ms: int | None = None
    retry_policy: RetryPolicy = RetryPolicy()
    cancellation_type: CancellationType = CancellationType.TRY_CANCEL
    headers: dict[str, str] = {}
    summary: str = ""
    priority: int = 0
    fairness_key: str = ""
    worker: str = ""
    inbox: int = 0


class ActivityCancelRequested(EventBase, frozen=True, kw_only=True):
    """Outcome. The code asked to cancel an activity; ``worker`` is told, if an attempt is dispatched."""

    activity_id: int
    attempt: int = 0
    dispatch: int = 0
    worker: str = ""
    inbox: int = 0


class TimerStarted(EventBase, frozen=True, kw_only=True):
    """Outcome. The code started a timer that fires at ``fire_time_ms``."""

    timer_id: int
    fire_time_ms: int
    summary: str = ""


class TimerCanceled(EventBase, frozen=True, kw_only=True):
    """Outcome. The code cancelled a timer."""

    timer_id: int


class EventPublished(EventBase, frozen=True, kw_only=True):
    """Outcome. The code published a business event; it leaves for ``topic`` once this is committed."""

    topic: str
    key: bytes
    payload: Payload
    headers: dict[str, bytes] = {}


class WorkflowCompleted(EventBase, frozen=True, kw_only=True):
    """Outcome. ``run()`` returned."""

    result: Payload | None = None
    tags: tuple[str, ...] = ()


class WorkflowFailed(EventBase, frozen=True, kw_only=True):
    """Outcome. ``run()`` raised a declared failure."""

    failure: Failure
    tags: tuple[str, ...] = ()


class WorkflowCanceled(EventBase, frozen=True, kw_only=True):
    """Outcome. ``run()`` ended because its cancellation was requested."""

    details: Payloads = ()
    tags: tuple[str, ...] = ()


class WorkflowTerminated(EventBase, frozen=True, kw_only=True):
    """Note. The run was closed from outside; its code was not told."""

    reason: str = ""
    details: Payloads = ()
    identity: str = ""


class WorkflowTimedOut(EventBase, frozen=True, kw_only=True):
    """Note. The run timeout passed, or a limit of events was reached (``failure`` says which)."""

    failure: Failure


class Dispatch(Value, frozen=True, kw_only=True):
    """One delivery of an attempt to a worker.

    ``dispatch`` counts the deliveries of this activity, over all attempts, from 1.
    """

    activity_id: int
    scheduled_event_id: int
    attempt: int
    dispatch: int
    worker: str
    inbox: int


class ActivitiesDispatched(EventBase, frozen=True, kw_only=True):
    """Note. Attempts that waited (for a slot, or after a failure) were sent to workers; at most 500."""

    dispatches: tuple[Dispatch, ...]


class ActivityAttemptFailed(EventBase, frozen=True, kw_only=True):
    """Note. An attempt failed, timed out or lost its worker; the next one is due at ``retry_time_ms``."""

    activity_id: int
    attempt: int
    failure: Failure
    retry_time_ms: int
    worker: str = ""
    started_time_ms: int = 0


class ActivitiesAbandoned(EventBase, frozen=True, kw_only=True):
    """Note. The run closes while these deliveries are with workers, who are told to stop; at most 500."""

    dispatches: tuple[Dispatch, ...]


class ActivityReturned(EventBase, frozen=True, kw_only=True):
    """Note. A worker gave a delivery back unstarted; the same attempt is dispatched again."""

    activity_id: int
    attempt: int
    dispatch: int
    worker: str
    reason: str = ""


class WorkflowBlocked(EventBase, frozen=True, kw_only=True):
    """Note. The run's code cannot go on (a bug, nondeterminism, a hang); its facts are kept for it."""

    reason: str
    failure: Failure


class WorkflowUnblocked(EventBase, frozen=True, kw_only=True):
    """Note. The run's code could go on again."""

    identity: str = ""


class UnknownEvent(EventBase, frozen=True, kw_only=True):
    """An event that a newer version wrote; skipped, but it keeps its place in the numbering."""

    kind: str


Fact = (
    WorkflowStarted
    | WorkflowSignaled
    | WorkflowCancelRequested
    | ActivityCompleted
    | ActivityFailed
    | ActivityTimedOut
    | ActivityCanceled
    | TimerFired
)
Outcome = (
    ActivityScheduled
    | ActivityCancelRequested
    | TimerStarted
    | TimerCanceled
    | EventPublished
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCanceled
)
Note = (
    WorkflowTerminated
    | WorkflowTimedOut
    | ActivitiesDispatched
    | ActivityAttemptFailed
    | ActivitiesAbandoned
    | ActivityReturned
    | WorkflowBlocked
    | WorkflowUnblocked
    | UnknownEvent
)
Event = Fact | Outcome | Note

FACTS: tuple[type[EventBase], ...] = Fact.__args__
OUTCOMES: tuple[type[EventBase], ...] = Outcome.__args__
CLOSES: tuple[type[EventBase], ...] = (
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowCanceled,
    WorkflowTerminated,
    WorkflowTimedOut,
)
"""The events that close a run; nothing follows one."""


def facts_of(events: Iterable[Event]) -> list[Fact]:
    """The facts among events, in order."""
    return [event for event in events if type(event) in _FACT_TYPES]  # type: ignore[misc]


def outcomes_of(events: Iterable[Event]) -> list[Outcome]:
    """The outcomes among events, in order."""
    return [event for event in events if type(event) in _OUTCOME_TYPES]  # type: ignore[misc]


# No kind of event is derived from another one, and to ask for each of a union's types takes a while.
_FACT_TYPES = frozenset(FACTS)
_OUTCOME_TYPES = frozenset(OUTCOMES)
