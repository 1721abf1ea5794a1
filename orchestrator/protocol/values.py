"""Values that commands, events and actions are made of. Times are Unix milliseconds in UTC."""

from __future__ import annotations

from enum import StrEnum

import msgspec

MAX_WORKFLOW_ID_CHARS = 1_000
"""As in Temporal: ids are keys in every index, so they are bounded."""

MAX_PAYLOAD_BYTES = 256 * 1024
"""All values of one command or event together. A turn's part holds 512 KiB, so one event always fits."""


class Value(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Base of all immutable values: compared by content, never changed, free of cycles."""


class Payload(Value, frozen=True, kw_only=True):
    """A value of the user's, as bytes. The engine never looks inside.

    ``encoding`` says how to read ``data``: ``json/plain``, ``binary/plain`` or ``binary/null``.
    """

    data: bytes
    encoding: str = "json/plain"
    metadata: dict[str, str] = {}


Payloads = tuple[Payload, ...]


class RetryPolicy(Value, frozen=True, kw_only=True):
    """When a failed activity is tried again. The defaults are Temporal's.

    Attempt *n* starts ``initial_interval_ms * backoff_coefficient ** (n - 2)`` after attempt *n - 1*
    failed, at most ``maximum_interval_ms`` (default 100 times the initial interval).
    ``maximum_attempts`` 0 means unlimited.
    """

    initial_interval_ms: int = 1_000
    backoff_coefficient: float = 2.0
    maximum_interval_ms: int | None = None
    maximum_attempts: int = 0
    non_retryable_error_types: tuple[str, ...] = ()


class FailureKind(StrEnum):
    """What sort of failure this is; one per error class that crosses a process boundary."""

    APPLICATION = "application"
    CANCELED = "canceled"
    TERMINATED = "terminated"
    TIMEOUT = "timeout"
    ACTIVITY = "activity"
    WORKER_LOST = "worker-lost"


class TimeoutType(StrEnum):
    """Which timeout passed."""

    START_TO_CLOSE = "start-to-close"
    SCHEDULE_TO_START = "schedule-to-start"
    SCHEDULE_TO_CLOSE = "schedule-to-close"
    HEARTBEAT = "heartbeat"
    RUN = "run"


class RetryState(StrEnum):
    """Why an activity got no further attempt. Names follow Temporal's."""

    NON_RETRYABLE_FAILURE = "non-retryable-failure"
    MAXIMUM_ATTEMPTS_REACHED = "maximum-attempts-reached"
    TIMEOUT = "timeout"
    CANCEL_REQUESTED = "cancel-requested"


class Failure(Value, frozen=True, kw_only=True):
    """A failure as data: what happened, of what kind, caused by what.

    ``type`` is matched by ``non_retryable_error_types``; ``stack`` is text for people.
    The fields from ``activity_type`` on are set for kind ``activity`` only.
    """

    kind: FailureKind
    message: str
    type: str = ""
    stack: str = ""
    non_retryable: bool = False
    next_retry_delay_ms: int | None = None
    details: Payloads = ()
    timeout_type: TimeoutType | None = None
    cause: Failure | None = None
    activity_type: str = ""
    activity_id: int = 0
    attempt: int = 0
    retry_state: RetryState | None = None


class WorkflowStatus(StrEnum):
    """Status of a run. ``BLOCKED`` is an open run whose code cannot go on until it is fixed."""

    RUNNING = "Running"
    BLOCKED = "Blocked"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    TERMINATED = "Terminated"
    TIMED_OUT = "TimedOut"

    @property
    def is_open(self) -> bool:
        """Whether the run can still change."""
        return self in (WorkflowStatus.RUNNING, WorkflowStatus.BLOCKED)


class IdReusePolicy(StrEnum):
    """Whether a workflow id may be used again after its last run closed."""

    ALLOW_DUPLICATE = "allow-duplicate"
    ALLOW_DUPLICATE_FAILED_ONLY = "allow-duplicate-failed-only"
    REJECT_DUPLICATE = "reject-duplicate"


class CancellationType(StrEnum):
    """What an awaiting workflow sees when it cancels an activity."""

    TRY_CANCEL = "try-cancel"
    WAIT_CANCELLATION_COMPLETED = "wait-cancellation-completed"
    ABANDON = "abandon"


class ReplyTo(Value, frozen=True, kw_only=True):
    """Where an answer goes: a partition of ``replies`` and the client that reads it."""

    partition: int
    client_id: str
