"""What the read side answers: rows of lists, descriptions of runs, exported histories."""

from __future__ import annotations

from orchestrator.protocol.records import Turn
from orchestrator.protocol.tasks import CoordinatorBeat, DeadLetter, WorkerBeat
from orchestrator.protocol.values import Failure, Payload, Payloads, Value, WorkflowStatus


class RunRow(Value, frozen=True, kw_only=True):
    """One run in a list.

    ``attempt`` is of the open activity that was tried most often. ``last_failure`` is the root cause of why
    the run closed or is blocked, or else of that activity's last failure, cut off where it is long;
    ``failure_group`` is the fingerprint of failures like it.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    status: WorkflowStatus
    start_time_ms: int
    close_time_ms: int | None = None
    history_events: int = 0
    activity_type: str = ""
    attempt: int = 0
    last_failure: str = ""
    tags: tuple[str, ...] = ()
    failure_group: str = ""


class TopicRecord(Value, frozen=True, kw_only=True):
    """A business event as it stands on a topic. ``value`` None is a tombstone."""

    offset: int
    time_ms: int
    key: bytes
    value: bytes | None
    headers: dict[str, bytes] = {}


class RunPage(Value, frozen=True, kw_only=True):
    """A page of a list, newest start first; ``next_page`` "" means that there is no other."""

    rows: tuple[RunRow, ...]
    next_page: str = ""


class PendingActivity(Value, frozen=True, kw_only=True):
    """An activity that is not closed. ``state``: waiting (no worker yet), running, or backoff."""

    activity_id: int
    activity_type: str
    task_queue: str
    state: str
    attempt: int
    maximum_attempts: int = 0
    scheduled_time_ms: int = 0
    started_time_ms: int | None = None
    next_retry_time_ms: int | None = None
    worker: str = ""
    last_failure: Failure | None = None


class PendingTimer(Value, frozen=True, kw_only=True):
    """A timer that has not fired."""

    timer_id: int
    fire_time_ms: int
    summary: str = ""


class RunDescription(Value, frozen=True, kw_only=True):
    """All there is to say about one run but its history."""

    row: RunRow
    input: Payloads = ()
    result: Payload | None = None
    failure: Failure | None = None
    blocked: Failure | None = None
    cancel_requested: bool = False
    run_timeout_time_ms: int | None = None
    pending_activities: tuple[PendingActivity, ...] = ()
    pending_timers: tuple[PendingTimer, ...] = ()


class History(Value, frozen=True, kw_only=True):
    """The export format of a run: its turns, as they were committed. Input of every replay."""

    workflow_id: str
    run_id: str
    workflow_type: str
    turns: tuple[Turn, ...]


class WorkerSeen(Value, frozen=True, kw_only=True):
    """A worker's last beat, and for how long nothing was heard since."""

    beat: WorkerBeat
    silent_ms: int


class CoordinatorSeen(Value, frozen=True, kw_only=True):
    """A coordinator's last beat, and for how long nothing was heard since."""

    beat: CoordinatorBeat
    silent_ms: int


class PartitionFollowed(Value, frozen=True, kw_only=True):
    """How far a view has come with one partition of history.

    ``offset`` is that of the next record to read, ``lag_records`` how many are known to come. Until it is
    ``ready``, the partition is being read for the first time, or again, and is not shown. ``trouble`` says
    what keeps it from being followed.
    """

    partition: int
    offset: int
    lag_records: int
    ready: bool
    void_records: int = 0
    trouble: str = ""


class ViewStatus(Value, frozen=True, kw_only=True):
    """How a view stands. ``dead_letters`` counts what is kept of records that nobody could use."""

    partitions: tuple[PartitionFollowed, ...]
    workers: tuple[WorkerSeen, ...] = ()
    coordinators: tuple[CoordinatorSeen, ...] = ()
    dead_letters: int = 0
    trouble: str = ""


class DeadLetterPage(Value, frozen=True, kw_only=True):
    """A page of dead letters, newest first; ``next_page`` "" means that there is no other."""

    letters: tuple[DeadLetter, ...]
    next_page: str = ""
