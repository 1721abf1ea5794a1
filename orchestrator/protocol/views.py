"""What the read side answers: rows of lists, descriptions of runs, exported histories."""

from __future__ import annotations

from enum import StrEnum

from msgspec.structs import replace

from orchestrator.protocol.records import Turn
from orchestrator.protocol.tasks import CoordinatorBeat, DeadLetter, WorkerBeat
from orchestrator.protocol.values import Failure, Payload, Payloads, Value, WorkflowStatus

STUCK_ATTEMPTS = 5
"""An activity that is tried so often is taken for stuck: by default, some 15 s after it failed first."""

STUCK_WAITING_MS = 60_000
"""An activity without a worker for so long is taken for stuck: workers that restart are back by then."""


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


class RunCount(Value, frozen=True, kw_only=True):
    """How many runs have a status and a type."""

    status: WorkflowStatus
    workflow_type: str
    runs: int


class RunCounts(Value, frozen=True, kw_only=True):
    """How many runs match a query, by status and type.

    Without ``complete`` there may be more: the query is none that counters answer, and a bounded number of
    runs was looked at, newest start first.
    """

    runs: int
    counts: tuple[RunCount, ...]
    complete: bool = True


class MinuteCount(Value, frozen=True, kw_only=True):
    """What happened in a minute, by its first millisecond: runs that started, that completed, and that closed
    in another way (failed, timed out, terminated, cancelled).
    """

    time_ms: int
    started: int = 0
    completed: int = 0
    failed: int = 0


class MinuteCounts(Value, frozen=True, kw_only=True):
    """What happened per minute in the last 24 hours, oldest first; minutes without anything are left out."""

    minutes: tuple[MinuteCount, ...]


class FailureGroup(Value, frozen=True, kw_only=True):
    """Runs that failed, or fail now, in the same way: so many, and the newest start among them.

    ``message`` is without numbers and ids. The query ``FailureGroup = "<fingerprint>"`` lists the runs.
    ``first_time_ms`` is when the first of them came, ``last_time_ms`` when one failed last.
    """

    fingerprint: str
    runs: int
    workflow_type: str
    activity_type: str
    failure_type: str
    message: str
    first_time_ms: int
    last_time_ms: int
    workflow_id: str = ""
    run_id: str = ""


class FailureGroups(Value, frozen=True, kw_only=True):
    """Failure groups, those with most runs first; ``more`` says how many are not among them."""

    groups: tuple[FailureGroup, ...]
    more: int = 0


class StuckReason(StrEnum):
    """Why a run does not get on."""

    BLOCKED = "blocked"
    RETRYING = "retrying"
    NO_WORKER = "no-worker"
    WAITING = "waiting"


class StuckRun(Value, frozen=True, kw_only=True):
    """A run that does not get on, or one of its activities.

    ``since_time_ms`` is since when the activity waits for a worker, or else when it was scheduled; of a run,
    when it last did something.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    reasons: tuple[StuckReason, ...]
    since_time_ms: int
    activity_id: int = 0
    activity_type: str = ""
    task_queue: str = ""
    attempt: int = 0
    maximum_attempts: int = 0
    next_retry_time_ms: int | None = None
    worker: str = ""
    last_failure: str = ""


class StuckPage(Value, frozen=True, kw_only=True):
    """A page of what is stuck: blocked runs, then activities, those of the oldest run first.

    ``next_page`` "" means that there is no other; a page may have few rows and be followed by others.
    """

    rows: tuple[StuckRun, ...]
    next_page: str = ""


class PendingActivity(Value, frozen=True, kw_only=True):
    """An activity that is not closed.

    ``state`` is waiting (for a worker, since ``waiting_time_ms``), running (on one since ``started_time_ms``)
    or backoff (until ``next_retry_time_ms``).
    """

    activity_id: int
    activity_type: str
    task_queue: str
    state: str
    attempt: int
    maximum_attempts: int = 0
    scheduled_time_ms: int = 0
    started_time_ms: int | None = None
    waiting_time_ms: int | None = None
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
    """The export format of a run: its turns, as they were committed. Input of every replay.

    ``partition`` and ``offsets``, one for each turn, say where they stand on the topic ``history``: a turn of
    several records at the last of them. -1 is not known.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    turns: tuple[Turn, ...]
    partition: int = -1
    offsets: tuple[int, ...] = ()

    def then(self, later: History) -> History:
        """This history and the turns that follow."""
        return replace(self, turns=self.turns + later.turns, offsets=self.offsets + later.offsets)


class WorkerSeen(Value, frozen=True, kw_only=True):
    """A worker's last beat, and for how long nothing was heard since."""

    beat: WorkerBeat
    silent_ms: int


class CoordinatorSeen(Value, frozen=True, kw_only=True):
    """A coordinator's last beat, and for how long nothing was heard since."""

    beat: CoordinatorBeat
    silent_ms: int


class QueueSeen(Value, frozen=True, kw_only=True):
    """A task queue as the beats tell of it.

    ``waiting`` activities have no worker, the oldest of them since ``oldest_time_ms``. ``slots`` and
    ``running`` are of all its ``workers``, and those may serve other queues as well.
    """

    task_queue: str
    waiting: int = 0
    oldest_time_ms: int | None = None
    workers: int = 0
    slots: int = 0
    running: int = 0


class Queues(Value, frozen=True, kw_only=True):
    """All task queues that anything waits for or that are served, by name."""

    queues: tuple[QueueSeen, ...]


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
