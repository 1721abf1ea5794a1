"""What coordinators, workers and clients tell each other outside of history."""

from __future__ import annotations

from orchestrator.protocol.values import Failure, Payload, Payloads, RetryPolicy, Value


class ActivityTask(Value, tag=True, tag_field="task", frozen=True, kw_only=True):
    """One delivery of one attempt to one worker incarnation.

    The record's header ``worker`` names the incarnation; the record's append time is compared with
    ``dispatched_time_ms`` by the receiver.
    """

    worker: str
    workflow_id: str
    run_id: str
    workflow_type: str
    activity_id: int
    activity_type: str
    task_queue: str
    attempt: int
    dispatch: int
    input: Payloads = ()
    scheduled_time_ms: int = 0
    dispatched_time_ms: int = 0
    schedule_to_close_ms: int | None = None
    start_to_close_ms: int | None = None
    heartbeat_ms: int | None = None
    retry_policy: RetryPolicy = RetryPolicy()
    headers: dict[str, str] = {}


class CancelTask(Value, tag=True, tag_field="task", frozen=True, kw_only=True):
    """Ask the worker to cancel an attempt that it runs."""

    worker: str
    run_id: str
    activity_id: int
    attempt: int
    dispatch: int


Task = ActivityTask | CancelTask


class WorkerBeat(Value, tag=True, tag_field="beat", frozen=True, kw_only=True):
    """A worker incarnation's state, once per second and at changes.

    ``regular`` tells the beats of the clock from those in between. ``inbox_offset`` is the offset
    after the last record of its inbox that it has seen. ``running`` counts attempts.
    """

    worker: str
    identity: str
    task_queues: tuple[str, ...]
    slots: int
    running: int
    inbox: int
    inbox_offset: int
    number: int
    regular: bool = True
    draining: bool = False
    stopped: bool = False
    activity_types: tuple[str, ...] = ()
    version: str = ""


class QueueBacklog(Value, frozen=True, kw_only=True):
    """How much waits in a coordinator for workers of a queue."""

    task_queue: str
    waiting: int
    oldest_time_ms: int


class CoordinatorBeat(Value, tag=True, tag_field="beat", frozen=True, kw_only=True):
    """A coordinator's state, once per second."""

    coordinator: str
    identity: str
    number: int
    partitions: tuple[int, ...]
    workflow_types: tuple[str, ...] = ()
    backlogs: tuple[QueueBacklog, ...] = ()
    stopped: bool = False
    version: str = ""
    feature_level: int = 1


Beat = WorkerBeat | CoordinatorBeat


class Reply(Value, frozen=True, kw_only=True):
    """The answer to one command: exactly one of ``result``, ``failure`` and ``rejection`` counts.

    ``partition`` and ``offset`` are a read-your-writes token: a view that has applied history up to
    there shows the effect.
    """

    client_id: str
    request_id: str
    run_id: str = ""
    status: str = ""
    result: Payload | None = None
    failure: Failure | None = None
    rejection: str = ""
    message: str = ""
    tags: tuple[str, ...] = ()
    partition: int = -1
    offset: int = -1


class DeadLetter(Value, frozen=True, kw_only=True):
    """A record that could not be decoded or decided, with the reason."""

    topic: str
    partition: int
    offset: int
    reason: str
    key: bytes = b""
    value: bytes = b""
    time_ms: int = 0
